"""(lesson, English term, sentence, Chinese term, Chinese sentence)"""
T = [
("01-gan-basics","generative adversarial network","A generator and a discriminator trained against each other: one makes samples, the other learns to tell them from real ones.","生成对抗网络","生成器与判别器相互对抗的训练方式：一个产生样本，另一个学着把样本与真实数据区分开。"),
("01-gan-basics","mode collapse","The failure in which a generator makes only a part of what the data contains.","模式坍塌","生成器只产生数据中一部分样本的失败。"),
("01-gan-basics","Fréchet distance","A distance between two Gaussians, from their means and covariances.","Fréchet 距离","由均值和协方差算出的两个高斯分布之间的距离。"),
("02-dcgan","transposed convolution","The transpose of a convolution as a linear map, which enlarges a picture.","转置卷积","把卷积看作线性映射时的转置，能把图像放大。"),
("02-dcgan","checkerboard artefact","A pattern of squares that arises when the windows of a transposed convolution overlap unevenly.","棋盘伪影","转置卷积的窗口重叠不均匀时出现的方格图案。"),
("03-wgan","Wasserstein distance","The least total way that mass must travel to turn one distribution into another.","Wasserstein 距离","把一个分布变成另一个分布时，质量搬运的最小总代价。"),
("03-wgan","critic","The network of a WGAN whose output is a score without bounds, and not a probability.","评论网络","WGAN 中输出无界分数而不是概率的网络。"),
("03-wgan","gradient penalty","A term of the loss that holds the norm of the critic's gradient near, or below, 1.","梯度惩罚","使评论网络的梯度范数接近或不超过 1 的损失项。"),
("03-wgan","spectral normalisation","The division of a weight matrix by its largest singular value.","谱归一化","用最大奇异值去除权重矩阵的做法。"),
("04-autoencoder","autoencoder","A network that compresses its input to a few numbers and rebuilds it from them.","自编码器","把输入压缩成少数几个数、再由它们重建输入的网络。"),
("04-autoencoder","denoising autoencoder","An autoencoder that reads a noisy input and is trained to output the clean one.","去噪自编码器","读入含噪输入、训练目标是输出干净输入的自编码器。"),
("05-vae","variational autoencoder","An autoencoder whose code is a distribution, trained by the ELBO, so that samples of the prior decode to new data.","变分自编码器","编码是一个分布、用 ELBO 训练的自编码器，从先验采样即可解码出新数据。"),
("05-vae","score-function estimator","An estimate of a gradient from the values of a function alone, by the gradient of the log density.","得分函数估计","只用函数值、借助对数密度的梯度来估计梯度的方法。"),
("06-diffusion-theory","forward process","The steps by which a diffusion model turns data into noise.","前向过程","扩散模型把数据逐步变成噪声的过程。"),
("06-diffusion-theory","noise schedule","How much of the signal is left after each step of diffusion.","噪声调度","扩散的每一步之后还剩多少信号的安排。"),
("06-diffusion-theory","score","The gradient of the log density by the data, which points to where data is denser.","得分","对数密度对数据的梯度，指向数据更密的地方。"),
("06-diffusion-theory","flow matching","Training a network to predict the velocity along straight paths from noise to data.","流匹配","训练网络预测从噪声到数据的直线路径上的速度。"),
("07-diffusion-implementation","U-Net","A network that goes down to small maps and up again, with connections between maps of the same size.","U-Net","先缩小再放大特征图、并把同样大小的特征图相连的网络。"),
("07-diffusion-implementation","DDIM","A sampler that adds no noise on its way back and may leave out steps.","DDIM","反向过程中不加噪声、可以跳步的采样方法。"),
("07-diffusion-implementation","classifier-free guidance","The exaggeration of what a condition changes in the prediction, against the prediction without it.","无分类器引导","把有条件与无条件的预测之差放大的做法。"),
("08-stable-diffusion-intro","latent diffusion","Diffusion on the codes of an autoencoder instead of on pixels.","潜空间扩散","在自编码器的编码上而不是在像素上进行的扩散。"),
("08-stable-diffusion-intro","text conditioning","The use of a caption's vectors in a picture network, by cross-attention.","文本条件","通过交叉注意力把文字描述的向量用于图像网络。"),
("09-fid-inception-score","Inception Score","A score of generated pictures that is high if a classifier is sure of each and finds all classes.","Inception Score","分类器对每张图像都有把握、且各类都出现时就高的分数。"),
("09-fid-inception-score","FID","The Fréchet distance between the features of real and of generated pictures.","FID","真实图像与生成图像的特征之间的 Fréchet 距离。"),
("09-fid-inception-score","precision and recall of a generator","The share of generated samples that lie among real ones, and of real ones that lie among generated ones.","生成模型的精确率与召回率","生成样本落在真实样本之间的比例，以及真实样本落在生成样本之间的比例。"),
("10-stylegan","mapping network","A network that turns the noise of a generator into a style vector with directions of its own.","映射网络","把生成器的噪声变成风格向量的网络。"),
("10-stylegan","modulated convolution","A convolution whose weights are scaled, for each sample, by its style.","调制卷积","权重按每个样本的风格缩放的卷积。"),
("10-stylegan","truncation","Moving style vectors towards their mean, for better but less varied samples.","截断","把风格向量拉近均值，以多样性换质量的做法。"),
("project-face-gan","differentiable augmentation","Random changes of real and generated pictures in front of the discriminator, through which gradients pass.","可微数据增强","在判别器之前对真实和生成图像作随机变化，梯度可以穿过。"),
("project-face-gan","nearest-neighbour check","The comparison of generated samples with their nearest training samples, to find copies.","最近邻检查","把生成样本与最近的训练样本比较，以发现抄袭。"),
]
if __name__ == "__main__":
    for zh in (0, 1):
        print(("## 第 8 阶段：生成模型" if zh else "## Phase 8: Generative models") + "\n")
        for key, en, es, cn, cs in T:
            path = f"../phase08_generative/{key}.py"
            num = f"8.{int(key[:2])}" if key[0].isdigit() else ("项目 8" if zh else "project 8")
            if zh:
                name = f"**{cn}**" + (f" {en}" if cn != en else "")
                print(f"- {name}：{cs}[{num}]({path})")
            else:
                print(f"- **{en}**: {es} [{num}]({path})")
        print()
