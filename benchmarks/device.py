"""What is made of a batch where the model is: milliseconds a batch of 8 clips at 112 pixels, rates mixed, side by side.

`python benchmarks/device.py --out benchmarks/results/device.csv`. The first row of each pair is the plain way: motion attention with the layers that the paper names, on floats, clip by clip;
the reconstruction loss of one clip after another, or as a product of tensors. Runs on the first GPU where there is one."""
import time
from statistics import median
import pandas as pd,torch
import torch.nn.functional as F
from fastcore.script import call_parse
from prp_fastai.all import *

def batch(device, n=8, size=112):
    g = torch.Generator().manual_seed(0)
    rates = torch.arange(n)%4
    frames = torch.cat([torch.randint(0, 256, (16*2**k,3,size,size), generator=g, dtype=torch.uint8) for k in rates.tolist()])
    return frames.to(device),rates.to(device)

def batch_in_yuv(device, size, n=8):
    frames,rates = batch(device, n, size)
    return frames[:,:1],frames[:,1:,:size//2,:size//2].as_subclass(TensorChroma),rates

def plain_attention(frames, rates):
    size,res = frames.shape[-2:],[]
    k,stride = pool_window(min(size))
    for x in frames.split([16*2**k for k in rates.tolist()]):
        P = F.avg_pool3d(frame_difference(x.transpose(0, 1).float()/255)[None], (15,k,k), (16,stride,stride))
        res.append(upsample(activate(P), (32,*size)))
    return torch.cat(res)

def our_attention(frames, rates):
    spans,s = [x.transpose(0, 1) for x in frames.split([16*2**k for k in rates.tolist()])],2**rates
    P = torch.stack([F.pad(pooled_difference(x), (0,0,0,0,0,8-x.shape[1]//16)) for x in spans])
    return motion_attention(P, s, (32,112,112))

def one_by_one(Y, G, M): return torch.stack([(M[i]*(Y[i]-G[i])**2).mean() for i in range(len(Y))])
def product(Y, G, M): return (M*(Y-G).square()).mean((1,2,3,4))

def ms(f, device, repeats):
    times = []
    for _ in range(repeats+1):
        if device.type=='cuda': torch.cuda.synchronize()
        start = time.perf_counter()
        f()
        if device.type=='cuda': torch.cuda.synchronize()
        times.append((time.perf_counter()-start)*1e3)
    return median(times[1:])

@call_parse
def main(
    repeats:int=9, # Times that each is measured
    out:str=None, # Table to write, .csv
):
    "Compare what is made of a batch"
    device = default_device()
    frames,rates = batch(device)
    made,scaled = PRPBatch(),PRPBatch(size=112)
    in_yuv,large = batch_in_yuv(device, 112),batch_in_yuv(device, 210)
    _,_,G,M = made((frames,rates))
    G,M = (o.as_subclass(Tensor) for o in (G,M))
    Y = torch.rand_like(G).requires_grad_()
    def step(loss): return lambda: torch.autograd.grad(loss(Y, G, M).mean(), Y)
    rows = {('motion attention','plain'): lambda: plain_attention(frames, rates), ('motion attention','prp_fastai'): lambda: our_attention(frames, rates),
            ('loss and gradient','clip by clip'): step(one_by_one), ('loss and gradient','product of tensors'): step(product), ('loss and gradient','prp_fastai'): step(m_mse),
            ('the whole of PRPBatch','from RGB'): lambda: made((frames,rates)), ('the whole of PRPBatch','from YUV'): lambda: made(in_yuv),
            ('the whole of PRPBatch','from YUV of 210 pixels, scaled'): lambda: scaled(large)}
    times = {k: [] for k in rows}
    for _ in range(3):
        for k,f in rows.items(): times[k].append(ms(f, device, repeats))
    df = pd.DataFrame({'ms a batch': {k: median(v) for k,v in times.items()}})
    first = df['ms a batch'].groupby(level=0, sort=False).transform('first')
    df['times as fast as the first'] = first/df['ms a batch']
    df.index.names = ['what','how']
    print(f'on {device}'), print(df.round(1).to_string())
    if out: df.round(2).to_csv(out)
