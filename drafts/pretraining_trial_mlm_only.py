import sys,time,argparse,copy
sys.path[:0]=['/work/main','/tmp/bx']
import torch,numpy as np
import torch.nn.functional as F
import reviews_x as R
from common.lessons import load_lesson
from common.config import LessonConfig
a=argparse.ArgumentParser()
for n,d in (('dim',64),('layers',2),('steps',600),('batch',64)): a.add_argument('--'+n,type=int,default=d)
for n,d in (('lr',3e-3),('share',0.25),('neg',0.2),('joined',1.0),('judged',0.67)): a.add_argument('--'+n,type=float,default=d)
a.add_argument('--seed',type=int,default=0); a.add_argument('--std',type=float,default=0)
c=a.parse_args()
torch.set_num_threads(1)
R.NEGATED=c.neg;R.JOINED=c.joined;R.JUDGED=c.judged
R.TEMPLATES={"known": (("{a} {n}", "{n} is {a}","its {n} feels {a}"), ("no {a} {n}", "{n} is not {a}","its {n} never feels {a}")),
 "new": (("what {a} {n}", "{n} seems {a}"), ("what not {a} {n}", "{n} never seems {a}"))}
L=load_lesson("phase07_transformer/07-bert-architecture")
class Cfg: pass
cfg=Cfg(); cfg.data='generated'; cfg.tiny=False; cfg.seed=c.seed
cfg.rng=lambda: np.random.default_rng(c.seed)
import common.record as rec
R.current=lambda: type('x',(),{'use_data':lambda *a:None,'read_test':lambda *a:None})()
data=R.load_reviews(cfg)
torch.manual_seed(c.seed)
bert=L.BERT(len(data.words),R.LENGTH,c.dim,c.layers,n_heads=4,dropout=0.0)
if c.std:
    for m in bert.modules():
        if isinstance(m,(torch.nn.Embedding,)): torch.nn.init.normal_(m.weight,std=c.std)
model=L.PreTraining(bert)
g=torch.Generator().manual_seed(c.seed)
opt=torch.optim.AdamW(model.parameters(),c.lr,betas=(.9,.99))
sched=torch.optim.lr_scheduler.OneCycleLR(opt,c.lr,c.steps,pct_start=.1)
adj={w:m for k in R.ADJECTIVES for m in (0,1) for w in R.ADJECTIVES[k][m].split()}
ids=torch.tensor([data.words.encode(w)[0] for w in adj]); mood=torch.tensor(list(adj.values()))
newm=torch.tensor([w in ' '.join(R.ADJECTIVES['new']) for w in adj])
is_adj=torch.full((len(data.words),),-1); is_adj[ids]=mood
t=time.time()
print(len(data.words),'words; example',data.unlabelled[:3])
def probe():
    E=bert.tokens.weight[ids].detach(); k=~newm
    m1=E[k&(mood==1)].mean(0)-E[k&(mood==0)].mean(0); mid=E[k].mean(0)
    p=((E-mid)@m1>0).long()
    return (p[newm]==mood[newm]).float().mean().item()
for s in range(c.steps):
    rows=torch.randint(len(data.halves[0]),(c.batch,),generator=g); tokens,seg=R.join(data.halves[0][rows],data.halves[1][rows])
    inp,lab=L.ask(tokens,len(data.words),g,share=c.share)
    model.train()
    x,_=bert(inp,seg); asked=lab!=-100; loss=F.cross_entropy(model.words(x[asked]),lab[asked])
    opt.zero_grad();loss.backward();torch.nn.utils.clip_grad_norm_(model.parameters(),1.0);opt.step();sched.step()
    if s%100==99:
        with torch.no_grad():
            tokens,seg,_=data.pairs(400,torch.Generator().manual_seed(99))
            m=is_adj[tokens]>=0
            pick=m&(torch.rand(tokens.shape,generator=torch.Generator().manual_seed(5))<.2)
            inp=tokens.clone(); inp[pick]=L.MASK
            x,_=bert(inp,seg)
            o=model.words(x[pick])
            pr=o[:,ids].softmax(1)@mood.float()
            acc=((pr>.5).long()==is_adj[tokens[pick]]).float().mean()
        print(s+1,f"loss {loss.item():.3f} mood {acc:.3f} probe-new {probe():.2f} {time.time()-t:.0f}s cpu {time.process_time():.0f}",flush=True)
torch.save(bert.state_dict(),f'/tmp/bx/bert_{c.dim}_{c.seed}.pt')
