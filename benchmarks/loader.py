"""The way from files to batches, side by side: items a second of a DataLoader with worker processes, batches of 8, playback rates mixed.

`python benchmarks/loader.py FOLDER --out benchmarks/results/loader_NAME.csv`. The first row is the authors' loader, written from the description of their code: OpenCV from
frame 0 to the end of the span, torchvision's transforms on each frame as a PIL image, floats and motion attention made in the worker. In the other rows only the reader differs: all ship the cropped raw frames, of which the device makes clip, target and attention (benchmarks/device.py), and the colours where frames come in YUV;
those that are scaled later come as large as most of the videos are.
Every way reads the same spans of the same files in each round, which are those of validation; ratios are of medians over rounds. Readers that are not installed are left out."""
import math,random,tempfile,time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
import numpy as np,pandas as pd,torch
import torch.nn.functional as F
from fastcore.script import call_parse
from torchvision import transforms
from fastai.data.load import DataLoader
from prp_fastai.all import *
import read as readers_of

SIZE = (128,171)

class Authors:
    "Their dataset: floats of clip, target and motion attention of one item, made from the start of the file"
    def __init__(self, files, attention, rates=(1,2,4,8)):
        self.files,self.rates,self.attention = files,rates,attention
        self.tfms = transforms.Compose([transforms.ToPILImage(), transforms.Resize(SIZE), transforms.CenterCrop(112), transforms.ToTensor()])
    def __len__(self): return len(self.files)

    def __getitem__(self, i):
        import cv2
        path,n = self.files[i],int(cv2.VideoCapture(str(self.files[i])).get(cv2.CAP_PROP_FRAME_COUNT))
        rng = item_rng(path, 42)
        s = rng.choice(feasible_rates(n, self.rates))
        start = rng.randrange(n_starts(n, s))
        raw = torch.stack([self.tfms(f) for f in readers_of.authors(path, range(start, start+16*s), False)], 1)
        G = sample_target(raw, s, 2)
        return G[:,::2], torch.tensor(self.rates.index(s)), G, self.attention(raw)

def authors_attention(raw):
    "As their code has it: from frames 0, 5, 10, 15 of every 16, for each channel and block alone, (3,32,112,112)"
    masks = []
    for block in raw.split(16, 1):
        P = F.avg_pool3d(block[:,::5].diff(dim=1).square()[None], (3,28,28), (3,7,7))
        lo,hi = P.amin((2,3,4), keepdim=True),P.amax((2,3,4), keepdim=True)
        masks.append(F.interpolate(.8 + 1.2*(P-lo+1e-6)/(hi-lo+1e-6), size=(512//raw.shape[1],112,112), mode='trilinear')[0])
    return torch.cat(masks, 1)

def paper_attention(raw):
    "As the paper has it, on all frames, with the layers it names, (1,32,112,112): what the other rows give"
    P = F.avg_pool3d(frame_difference(raw)[None], (15,28,28), (16,7,7))
    return upsample(activate(P), (32,112,112))[0]

class Reading:
    "A reader of the benchmark, in the clothes of a `VideoReader`"
    def __init__(self, read, counts, path): self.read,self.n,self.path = read,counts[str(path)],path
    def __len__(self): return self.n
    def __enter__(self): return self
    def __exit__(self, *args): pass
    def frames(self, idxs, size, window):
        frames,(top,left,h,w) = np.stack(self.read(self.path, idxs)),window
        return TensorVideo(torch.from_numpy(frames[:,top:top+h,left:left+w]).permute(3,0,1,2), fn=str(self.path))

def authors_dl(files, workers, attention, bs=8): return torch.utils.data.DataLoader(Authors(files, attention), bs, num_workers=workers, drop_last=True)

def ours_dl(files, workers, reader, **kwargs):
    dl = prp_dblock(splitter=IndexSplitter(range(1, len(files)+1)), reader=reader, **kwargs).dataloaders(files[:1]+files, bs=8, num_workers=workers, device='cpu').valid
    dl.after_batch = Pipeline()
    return dl

def rate_of(way, files, workers, seconds=0):
    "Items a second of batches that are not touched further, from when each worker has given one to the last; where `seconds` is given, over the files as often as it takes to last so long"
    if seconds: files = files*math.ceil(seconds*rate_of(way, files, workers)/len(files))
    it = iter(way(files))
    for _ in range(workers): next(it)
    start,n = time.perf_counter(),0
    for b in it: n += len(b[-1])
    return n/(time.perf_counter()-start)

def chosen(folder, n):
    "The manifest of what can be read in `folder`, and `n` of its files"
    videos = scan_videos(get_video_files(folder))
    videos = videos[(videos.status=='ok') & (videos.n_frames>=16)]
    return videos,L(random.Random(0).choices(videos.path.tolist(), k=n)).map(Path)

@call_parse(pos=['folder'])
def main(
    folder:str, # Videos
    n_items:int=64, # Items that all ways load; batches of 8 for each worker
    rounds:int=5, # Passes of each way
    seconds:float=8, # Least length of a pass
    workers:int=2, # Worker processes
    out:str=None, # Table to write, .csv
):
    "Compare ways to load"
    torch.set_num_threads(1)
    videos,files = chosen(folder, n_items)
    counts = dict(zip(videos.path, videos.n_frames))
    with tempfile.TemporaryDirectory() as tmp:
        for yuv in (False,True): cache_videos(set(files), tmp, SIZE, manifest=videos, yuv=yuv)
        ways = {"authors' loader": partial(authors_dl, workers=workers, attention=authors_attention), "authors' loader, attention of the paper": partial(authors_dl, workers=workers, attention=paper_attention)}
        for name in ('opencv','pyav_naive','torchcodec','decord'):
            if name in readers_of.readers: ways[name] = partial(ours_dl, workers=workers, reader=partial(Reading, readers_of.readers[name], counts))
        ways['prp_fastai'] = partial(ours_dl, workers=workers, reader=OpenVideo(videos))
        if 'torchcodec' in readers_of.readers: ways['prp_fastai, torchcodec'] = partial(ours_dl, workers=workers, reader=OpenVideo(videos, backend='torchcodec'))
        ways['prp_fastai, YUV'] = in_yuv = partial(ours_dl, workers=workers, reader=OpenVideo(videos, yuv=True), yuv=True)
        ways['prp_fastai, YUV, scaled later'] = partial(in_yuv, read_size=tuple(map(int, videos[['height','width']].value_counts().index[0])))
        ways['prp_fastai, cached'] = partial(ours_dl, workers=workers, reader=OpenVideo(videos, tmp, SIZE))
        ways['prp_fastai, cached YUV'] = partial(ours_dl, workers=workers, reader=OpenVideo(videos, tmp, SIZE, yuv=True), yuv=True)
        rates = {name: [] for name in ways}
        for _ in progress_bar(range(rounds), leave=False, display=sys.stdout.isatty()):
            for name,dl in ways.items(): rates[name].append(rate_of(dl, files, workers, seconds))
    df = pd.DataFrame({'items a second': {k: median(v) for k,v in rates.items()}})
    df["times the authors'"] = df.iloc[:,0]/df.iloc[0,0]
    print(df.round(1).to_string())
    if out: df.round(2).to_csv(out, index_label='loader')
