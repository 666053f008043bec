"""One step of pretraining, side by side: batch, forward, backward and optimiser, each speed-up off and on, against the same step as the authors write it.

`python benchmarks/train.py --width .25 --size 56 --bs 4 --out benchmarks/results/train_cpu.csv` on a CPU; on a GPU `python benchmarks/train.py --encoders c3d --size 112 --bs 32 --out ...`, an encoder a run.
The first row of each encoder is the authors' training step, written from the description of their code: target and motion attention made on the CPU, of one clip after another, floats sent to the device, 32 bits,
the loss as products of tensors, torch's SGD. All other rows send raw frames and make the rest on the device. Times are medians over rounds, in each of which every way does the same number of steps; ratios are within one run.
Frames are random and in memory; with `--folder` there are rows with data too: the authors' loader before their step (for 112 pixels, where OpenCV is there), and `PRPDataLoaders`, reading from `--cache` where that is given.
A second table, `..._parts.csv`, says where the time goes. Arithmetic is counted by torch's `FlopCounterMode` on the layers as they are, whatever a way saves or does twice, and set against a product of matrices of the same type in the same run."""
import itertools,os,random,time
from contextlib import nullcontext
from importlib.util import find_spec
from statistics import median
import pandas as pd,torch
import torch.nn.functional as F
from fastcore.script import call_parse
from torch.utils.flop_counter import FlopCounterMode
from prp_fastai.all import *
import device as on_device,loader

AUTHORS = "authors' training step"
SWITCHES = {'channels last': ChannelsLast3d, 'bfloat16': BF16, 'folded': FoldUpsampling, 'compiled': Compile, 'recomputed': Recompute}
FAST = ('channels last','bfloat16','folded')
WAYS = (), *((o,) for o in SWITCHES), FAST[:2], FAST, (*FAST,'compiled'), (*FAST,'recomputed')

def now(device):
    if device.type=='cuda': torch.cuda.synchronize()
    return time.perf_counter()

def plain_batch(frames, rates):
    "Clip, rate, target and attention of a batch in memory, one item after another"
    G = torch.stack([sample_target(x.transpose(0, 1).float()/255, s, 2) for x,s in zip(frames.split((16*2**rates).tolist()), (2**rates).tolist())])
    return G[:,:,::2].contiguous(),rates,G,on_device.plain_attention(frames, rates)

def authors_loss(model, X, rates, G, M):
    logits,Y = model(X)
    return .1*F.cross_entropy(logits, rates) + (M*(Y-G)**2).mean()

class Authors:
    "Their step, on `batches` in the CPU's memory"
    def __init__(self, model, batches, device):
        self.model,self.batches,self.device = model.to(device).train(),batches,device
        rest,last = prp_splitter(model)
        self.opt = torch.optim.SGD([dict(params=rest), dict(params=last, lr=.1)], lr=.01, momentum=.9, weight_decay=5e-4)

    def __call__(self, n):
        times = []
        for b in itertools.islice(self.batches(), n):
            loss = authors_loss(self.model, *(o.to(self.device) for o in b))
            self.opt.zero_grad()
            loss.backward()
            self.opt.step()
            times.append(now(self.device))
        return times

    def held(self, xb): return held_bytes(self.model, *xb)

class Clock(Callback):
    "Note when each of `n` steps of training has ended, and end the fit there"
    order = 90
    def __init__(self, n): self.n,self.times = n,[]
    def after_batch(self):
        self.times.append(now(self.dls.device))
        if len(self.times)>=self.n: raise CancelTrainException
    def before_validate(self): raise CancelValidException

class Held(Callback):
    "Count the bytes held for the backward pass"
    order = 80
    def before_batch(self): self.learn.n_bytes = held_bytes(self.model, *self.xb)

class Made:
    "A DataLoader that makes the same raw frames into a batch on `device` time and again"
    def __init__(self, frames, rates, device): self.b,self.device,self.made = (frames,rates),device,PRPBatch()
    def __len__(self): return 1
    def __iter__(self):
        while True: yield self.made(tuple(o.to(self.device) for o in self.b))

class Ours:
    "A step of a `Learner` with callbacks"
    def __init__(self, model, dls, switches=(), opt_func=prp_sgd):
        self.cbs = [SWITCHES[o] for o in switches]
        self.learn = Learner(dls, model, PRPLoss(), opt_func=opt_func, splitter=prp_splitter, lr=.01, wd_bn_bias=True, cbs=StopAtNonFinite())

    def fit(self, *cbs):
        with self.learn.no_bar(), self.learn.no_logging(): self.learn.fit(1, cbs=[o() for o in self.cbs]+L(cbs))

    def __call__(self, n):
        clock = Clock(n)
        self.fit(clock)
        return clock.times

    def held(self, xb):
        self.fit(Clock(1), Held())
        return self.learn.n_bytes

def torch_sgd(params, lr, **kwargs): return OptimWrapper(params, torch.optim.SGD, lr=lr, momentum=.9, weight_decay=5e-4, foreach=False)

def peak(way, xb, device):
    "Bytes that a step takes beside weights and optimiser: on a GPU the allocator's peak, on a CPU what is held between forward and backward"
    if device.type!='cuda': return way.held(xb)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    way(1)
    return torch.cuda.max_memory_allocated()-before

def matrix_rate(device, dtype, n):
    "GFLOP/s of a product of two matrices (n,n)"
    a,b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    def ms():
        start = now(device)
        a@b
        return now(device)-start
    return 2*n**3/median([ms() for _ in range(12)][2:])/1e9

def timed(f, device):
    start = now(device)
    res = f()
    return res,(now(device)-start)*1e3

def parts(model, b, switches=(), repeats=5):
    "Milliseconds and GFLOP of each part of a step, each on its own"
    x,*y = (o.as_subclass(Tensor) for o in b)
    device,layers = x.device,model.recon.layers
    if 'folded' in switches: fold(model)
    if 'channels last' in switches: x = x.contiguous(memory_format=torch.channels_last_3d)
    chain = dict(model.encoder.named_children()) | {'rate head': model.rate, 'convolution of the decoder': layers[0]} | {f'up{i+1}': layers[2*i+1:2*i+3] for i in range(4)}
    loss_func,opt,rows = PRPLoss(),prp_sgd(prp_splitter(model)),[]
    for i in range(repeats+1):
        h,res = x,{}
        def add(name, f, *xs):
            with FlopCounterMode(display=False) if i==0 else nullcontext() as flops:
                with torch.autocast(device.type, torch.bfloat16, enabled='bfloat16' in switches): out,forward = timed(f, device)
                _,backward = timed(lambda: out.backward(torch.ones_like(out)), device) if out.requires_grad else (None,0)
            res[name] = dict(forward=forward, backward=backward, GFLOP=flops.get_total_flops()/1e9 if i==0 else 0)
            return out.detach().requires_grad_()
        for name,m in chain.items():
            out = add(name, lambda: m(h))
            if name=='rate head': logits = out.float().detach().requires_grad_()
            else: h = out
        Y = h[tuple(map(slice, y[1].shape))].float().detach().requires_grad_()
        add('loss', lambda: loss_func((logits,Y), *y))
        res['optimiser'] = dict(forward=timed(opt.step, device)[1], backward=0, GFLOP=0)
        opt.zero_grad()
        rows.append(pd.DataFrame(res).T)
    times = pd.concat(rows[1:]).groupby(level=0, sort=False)[['forward','backward']].median()
    return times.rename(columns='ms {}'.format).assign(GFLOP=rows[0].GFLOP).rename_axis('part')

def measure(encoder, width, frames, rates, device, steps, rounds, eager, folder, cache, workers):
    "Both tables of one encoder"
    def model():
        torch.manual_seed(0)
        return PRPModel(encoder, width=width)
    bs,size = len(rates),frames.shape[-1]
    synthetic = DataLoaders(*[Made(frames, rates, device)]*2, device=device)
    synthetic.n_inp = 1
    b = tuple(o.as_subclass(Tensor) for o in first(synthetic.train))
    with torch.no_grad():
        ours,theirs = PRPLoss()(model().to(device)(b[0]), *b[1:]).item(),authors_loss(model().to(device), *(o.to(device) for o in plain_batch(frames, rates))).item()
    print(f"{encoder}: loss {ours:.7f}, authors' {theirs:.7f}")
    assert abs(ours-theirs)<1e-4*theirs
    ways = {AUTHORS: Authors(model(), lambda: (plain_batch(frames, rates) for _ in itertools.count()), device)}
    ways |= {', '.join(o) or 'prp_fastai': Ours(model(), synthetic, o) for o in WAYS if not (eager and 'compiled' in o)}
    ways['optimiser not fused'] = Ours(model(), synthetic, opt_func=torch_sgd)
    fast,skip = [o for o in ways if 'bfloat16' in o and 'recomputed' not in o][-1],{}
    if folder:
        n = steps+2*workers+1
        files = get_video_files(folder)
        many = files*math.ceil(2*n*bs/len(files))
        dls = PRPDataLoaders.from_files(many, cache=cache, size=size, bs=bs, num_workers=workers, device=device)
        ways[f'{fast}, with data'] = Ours(model(), dls, fast.split(', '))
        if size==112 and find_spec('cv2'):
            ways["authors' training step, with data"] = Authors(model(), lambda: loader.authors_dl(many, workers, loader.authors_attention, bs), device)
        skip = {o: 2*workers for o in ways if 'with data' in o}
    megabytes = {k: (way(1), peak(way, b[:1], device)/1e6)[1] for k,way in ways.items()}
    seconds = {k: [] for k in ways}
    for _ in range(rounds):
        for k,way in ways.items():
            times = way(steps+1+skip.get(k, 0))[skip.get(k, 0):]
            seconds[k].append((times[-1]-times[0])/steps)
    where = pd.concat({', '.join(o) or 'prp_fastai': parts(model().to(device).train(), b, o) for o in ((),FAST)}, names=['way'])
    gflop,peaks = where.loc['prp_fastai'].GFLOP.sum(),{dtype: matrix_rate(device, dtype, 8192 if device.type=='cuda' else 1024) for dtype in (torch.float32,torch.bfloat16)}
    df = pd.DataFrame({'ms a step': {k: median(v)*1e3 for k,v in seconds.items()}, 'MB a step': megabytes})
    df['items a second'] = 1e3*bs/df['ms a step']
    df["times the authors'"] = df['ms a step'][AUTHORS]/df['ms a step']
    df['times prp_fastai'] = df['ms a step']['prp_fastai']/df['ms a step']
    df['GFLOP/s'] = 1e3*gflop/df['ms a step']
    df['% of a product of matrices'] = [100*o/peaks[torch.bfloat16 if 'bfloat16' in k else torch.float32] for k,o in df['GFLOP/s'].items()]
    print(f'{gflop:.1f} GFLOP a step; a product of matrices does '+', '.join(f'{v:.0f} GFLOP/s in {str(k)[6:]}' for k,v in peaks.items()))
    print(df.round(2).to_string(), where.round(2).to_string(), sep='\n\n', end='\n\n')
    return df.rename_axis('way'),where

@call_parse
def main(
    encoders:str='c3d,r3d,r2plus1d', # Encoders, by comma
    width:float=1., # Factor on the encoder's channels
    size:int=112, # Side of the crop in pixels
    bs:int=8, # Items in a batch
    steps:int=5, # Steps of each way in a round
    rounds:int=5, # Rounds
    eager:store_true=False, # Leave out what is compiled?
    folder:str=None, # Videos, for rows with data
    cache:str=None, # Folder that `prp-cache` filled for `size`
    workers:int=None, # Worker processes; the number of cores where None
    out:str=None, # Table to write, .csv; where the time goes is written beside it
):
    "Compare ways to train"
    device = default_device()
    print(f'on {device}, {torch.get_num_threads()} threads; convolutions in TF32: {device.type=="cuda" and torch.backends.cudnn.allow_tf32}')
    torch.backends.cudnn.benchmark,torch.backends.cuda.matmul.allow_tf32 = True,torch.backends.cudnn.allow_tf32
    frames,rates = on_device.batch(torch.device('cpu'), bs, size)
    res = {o: measure(o, width, frames, rates, device, steps, rounds, eager, folder, cache, ifnone(workers, os.cpu_count())) for o in encoders.split(',')}
    for i,name in enumerate(('','_parts')):
        if out: pd.concat({k: v[i] for k,v in res.items()}, names=['encoder']).round(3).to_csv(Path(out).with_stem(Path(out).stem+name))
