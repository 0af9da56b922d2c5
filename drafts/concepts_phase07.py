"""(lesson, English term, sentence, Chinese term, Chinese sentence)"""
T = [
("01-self-attention","self-attention","Attention whose queries, keys and values are all computed from the same sequence.","自注意力","查询、键和值都由同一个序列算出的注意力。"),
("01-self-attention","query, key and value","Three linear maps of a vector: what a position looks for, what it offers to be found by, and what it passes on.","查询、键和值","同一向量的三个线性变换，分别表示一个位置要找什么、凭什么被找到、被找到后传出什么。"),
("01-self-attention","scaled dot product","The dot product of a query and a key, divided by the root of their width so that its variance stays 1.","缩放点积","查询与键的点积除以宽度的平方根，使方差保持为 1。"),
("01-self-attention","causal mask","A mask that lets each position attend only to itself and to earlier positions.","因果掩码","让每个位置只能关注自己和更早位置的掩码。"),
("02-multi-head-attention","attention head","One of several attentions that run side by side, each on its own part of the width.","注意力头","并列运行的多个注意力之一，各自使用宽度中属于自己的一部分。"),
("02-multi-head-attention","cross-attention","Attention whose queries come from one sequence and whose keys and values come from another.","交叉注意力","查询来自一个序列、键和值来自另一个序列的注意力。"),
("03-positional-encoding","positional encoding","A vector or a rotation that tells attention at which position a token stands.","位置编码","告诉注意力每个词元处于哪个位置的向量或旋转。"),
("03-positional-encoding","rotary position embedding","A rotation of queries and keys by angles that grow with the position, so that scores depend only on the offset.","旋转位置编码","按随位置增大的角度旋转查询和键，使分数只取决于相对距离的做法。"),
("03-positional-encoding","ALiBi","A penalty on attention scores that grows linearly with the distance, in place of positional vectors.","ALiBi","不用位置向量、而让注意力分数随距离线性降低的做法。"),
("04-transformer-encoder","Transformer encoder","A stack of layers, each of self-attention and a feed-forward network, with a residual connection and a normalisation around both.","Transformer 编码器","由若干层堆叠而成，每层含自注意力和前馈网络，两者都配有残差连接和归一化。"),
("04-transformer-encoder","feed-forward network","Two linear layers with an activation between them, applied to each position by itself.","前馈网络","中间夹一个激活函数的两个线性层，对每个位置单独作用。"),
("04-transformer-encoder","pre-norm and post-norm","Normalisation before each sublayer, inside the residual branch, or after the sum.","前置与后置归一化","归一化放在子层之前（残差支路之内），还是放在相加之后。"),
("05-transformer-decoder","Transformer decoder","A stack of layers with causal self-attention, cross-attention to the encoder's output, and a feed-forward network.","Transformer 解码器","由若干层堆叠而成，每层含因果自注意力、对编码器输出的交叉注意力和前馈网络。"),
("06-transformer-full","warm-up","A learning rate that grows from almost 0 over the first steps before it falls.","预热","学习率先在最初若干步中从接近 0 升上去、再下降的安排。"),
("06-transformer-full","weight tying","The use of one table both for the embeddings and for the output layer.","权重绑定","嵌入表与输出层共用同一张表的做法。"),
("07-bert-architecture","masked language modelling","Training to restore tokens that were hidden, from the tokens on both sides.","掩码语言建模","根据两侧的词元还原被遮住的词元的训练任务。"),
("07-bert-architecture","next-sentence prediction","Training to tell whether the second of two texts followed the first.","下一句预测","判断第二段文字是否紧接在第一段之后的训练任务。"),
("07-bert-architecture","pre-training","Training on a task that needs no labels, to obtain weights for other tasks.","预训练","在不需要标注的任务上训练，得到可用于其他任务的权重。"),
("08-bert-finetuning","fine-tuning","Further training of a pre-trained network on a task of interest, mostly with few labels.","微调","在目标任务上继续训练预训练过的网络，通常只用少量标注。"),
("09-gpt-architecture","decoder-only model","A Transformer with causal self-attention alone that predicts the next token.","仅解码器模型","只含因果自注意力、预测下一个词元的 Transformer。"),
("09-gpt-architecture","context length","The largest number of tokens that a model can take in at once.","上下文长度","模型一次最多能读入的词元数。"),
("10-gpt-generation","KV cache","The keys and values of the tokens so far, kept so that a new token needs only its own.","KV 缓存","保存已有词元的键和值，使新词元只需计算自己的那一份。"),
("10-gpt-generation","top-k sampling","Sampling from the k most probable tokens only.","top-k 采样","只从概率最大的 k 个词元中采样。"),
("10-gpt-generation","few-shot prompting","Examples of a task in the prompt, so that a model solves it without a change of its weights.","少样本提示","在提示中给出任务的几个例子，让模型不改权重就能完成任务。"),
("11-vision-transformer","vision transformer","A Transformer encoder whose tokens are patches of a picture.","视觉 Transformer","以图片小块为词元的 Transformer 编码器。"),
("11-vision-transformer","class token","A learned vector added to the sequence whose output stands for the whole input.","类别词元","加进序列的一个可学习向量，其输出代表整个输入。"),
("11-vision-transformer","attention rollout","The product of all layers' attention, with the residual connections counted in, as a map from input to output.","注意力展开","把各层注意力连同残差连接相乘，得到从输入到输出的对应关系。"),
("12-t5","text-to-text","The form in which every task is a text to read and a text to write.","文本到文本","把每个任务都写成读一段文字、写一段文字的形式。"),
("12-t5","span corruption","Training to restore spans of text that were each replaced by one marker.","片段破坏","每个片段被一个标记取代，训练模型还原这些片段的任务。"),
("12-t5","relative position bias","A learned number added to the attention score that depends only on the offset of the two positions.","相对位置偏置","加到注意力分数上、只取决于两个位置之差的可学习数值。"),
("project-translation","byte-pair encoding","A vocabulary that starts from characters and joins the most frequent pair of neighbours again and again.","字节对编码","从字符出发、反复合并最常见的相邻一对而得到的词表。"),
("project-translation","BLEU","The geometric mean of n-gram precisions against reference translations, lowered for output that is too short.","BLEU","与参考译文相比的各阶 n-gram 精确率的几何平均，译文过短时再作惩罚。"),
("project-bert-sentiment","TF-IDF","Counts of words in a text, weighted down for words that stand in many texts.","TF-IDF","文本中的词频，对出现在许多文本中的词降低权重。"),
("project-bert-sentiment","error analysis","The sorting of a model's mistakes by kind, to see what to mend first.","错误分析","把模型的错误按类型归类，看先改什么。"),
]
if __name__ == "__main__":
    import sys
    for zh in (0, 1):
        print(("## 第 7 阶段：注意力与 Transformer" if zh else "## Phase 7: attention and Transformer") + "\n")
        for key, en, es, cn, cs in T:
            path = f"../phase07_transformer/{key}.py"
            num = f"7.{int(key[:2])}" if key[0].isdigit() else ("项目 7" if zh else "project 7")
            if zh:
                name = f"**{cn}**" + (f" {en}" if cn != en else "")
                print(f"- {name}：{cs}[{num}]({path})")
            else:
                print(f"- **{en}**: {es} [{num}]({path})")
        print()
