"What test_distributed.py runs in one process and in two: `python shared_job.py train|forever FOLDER BS`"
import signal,sys
from contextlib import suppress
from prp_fastai.all import *
from fastai.distributed import rank0_first

defaults.use_cuda = False
videos = sorted(get_video_files(sample_videos()))[:21]

def draw(path): return random.random()

def prp(bs, path):
    "A learner whose processes start from different seeds, in plain arithmetic, in which sums in another order show least"
    dls = rank0_first(PRPDataLoaders.from_files, videos[:16], videos[16:], size=24, bs=bs, num_workers=0, path=path)
    set_seed(rank_distrib())
    learn = prp_learner(dls, 'c3d', width=.05, lr=.02, speed='')
    dls.train.rng.seed(rank_distrib())
    learn.recorder.train_metrics = True
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def linear(bs, n_valid, path):
    "A small classifier that validates on `n_valid` items"
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    items = [(o,int(o[0]>0)) for o in x]
    set_seed(0)
    dls = DataLoaders(DataLoader(items[:20], bs=bs, shuffle=True, drop_last=True), DataLoader(items[20:20+n_valid], bs=bs), path=path)
    learn = Learner(dls, nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), CrossEntropyLossFlat(), opt_func=SGD, metrics=[accuracy, F1Score()])
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def played(bs, workers, skip):
    "The draws of an epoch, a list for each batch"
    set_seed(3+rank_distrib())
    dl = VideoDL(videos[:10], after_item=draw, bs=bs//2, num_workers=workers, shuffle=True)
    dl.first_batch = skip
    return [b.tolist() for b in (SharedDL(dl, True) if num_distrib() else dl)][:2-skip]

def train(path, bs):
    "All that several processes should do as one does, into a file for each"
    learn = prp(bs, path)
    with learn.distrib_ctx():
        learn.fit(3, cbs=[table:=CSVLogger(), SaveBestEncoder(path/'encoder.safetensors')])
        learn.save_encoder(path/f'{rank_distrib()}.safetensors')
        res = dict(values=learn.recorder.values, losses=learn.recorder.losses, validated=learn.validate(), preds=learn.get_preds(with_loss=True))
    res |= dict(wrote='file' in vars(table), model=learn.model.state_dict(), classes={type(m).__name__ for m in learn.model.modules()})
    for n in (7,1):
        learn = linear(bs, n, path/f'{n}')
        with learn.distrib_ctx(): res |= {f'kept {n}': learn.fit_paper(2, lr=.1), f'preds {n}': learn.get_preds()}
    learn = prp(bs, path)
    with learn.distrib_ctx(sync_bn=False): learn.fit(1)
    res |= dict(apart=learn.recorder.values, buffers=[*learn.model.buffers()])
    for at in ((1,0),None):
        learn = prp(bs, path)
        with learn.distrib_ctx(), suppress(SystemExit): learn.fit(2, cbs=[Resume(path/'stopped'), Stop(at)])
    res |= dict(resumed=learn.recorder.values, drawn=[torch.rand(3)])
    learn = prp(bs, path)
    with learn.distrib_ctx(): learn.fit(2)
    res |= dict(unbroken=learn.recorder.values, drawn=[*res['drawn'], torch.rand(3)])
    learn = prp(bs, path)
    with learn.distrib_ctx(): learn.fit(2, cbs=[Recompute(), FoldUpsampling(), ChannelsLast3d()])
    res |= dict(recomputed=learn.recorder.values)
    if num_distrib(): torch.distributed.barrier()
    res |= dict(played=[played(bs, workers, skip) for workers,skip in ((0,0), (2,0), (2,1))])
    torch.save(res, path/f'{rank_distrib()}.pt')

class Stop(Callback):
    "SIGTERM for the last process only"
    def __init__(self, at): self.at = at
    def after_step(self):
        if (self.epoch,self.iter)==self.at and rank_distrib()==max(0, num_distrib()-1): os.kill(os.getpid(), signal.SIGTERM)

class Say(Callback):
    def after_step(self): print('a step', flush=True)

def forever(path, bs):
    learn = prp(bs, path)
    with learn.distrib_ctx(): learn.fit(10**6, cbs=Say())

if __name__=='__main__': globals()[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
