"""Readers side by side: milliseconds to decode the span of a clip and scale it to 128x171, and how many files each reads right.

`python benchmarks/read.py FOLDER --out benchmarks/results/read_NAME.csv`; readers that are not installed are left out. All are timed in turn on the same spans, so that their ratios hold on a noisy machine.
The first row is the authors' reader: OpenCV from frame 0 up to the end of the span, and PIL to scale each frame."""
import random,time
from importlib.util import find_spec
from statistics import median
import av,numpy as np,pandas as pd
from fastcore.script import call_parse
from PIL import Image
from prp_fastai.external import get_video_files
from prp_fastai.read import VideoReader

H,W = 128,171

def authors(path, idxs, size=True):
    import cv2
    cap,frames = cv2.VideoCapture(str(path)),[]
    for i in range(idxs[-1]+1):
        ok,f = cap.read()
        if not ok: break
        if i>=idxs[0]: frames.append(cv2.cvtColor(f, cv2.COLOR_BGR2RGB))
    return [np.asarray(Image.fromarray(f).resize((W,H), Image.BILINEAR)) for f in frames] if size else frames

def opencv(path, idxs, size=True):
    import cv2
    cap,frames = cv2.VideoCapture(str(path)),[]
    cap.set(cv2.CAP_PROP_POS_FRAMES, idxs[0])
    for _ in idxs:
        ok,f = cap.read()
        if not ok: break
        f = cv2.cvtColor(f, cv2.COLOR_BGR2RGB)
        frames.append(cv2.resize(f, (W,H), interpolation=cv2.INTER_AREA) if size else f)
    return frames

def pyav_naive(path, idxs, size=True):
    with av.open(str(path)) as c:
        frames = []
        for i,f in enumerate(c.decode(video=0)):
            if i>idxs[-1]: break
            if i>=idxs[0]: frames.append((f.reformat(width=W, height=H, format='rgb24') if size else f).to_ndarray(format='rgb24'))
        return frames

def torchcodec(path, idxs, size=True):
    import torch.nn.functional as F
    from torchcodec.decoders import VideoDecoder
    x = VideoDecoder(str(path), seek_mode='exact', num_ffmpeg_threads=1).get_frames_in_range(idxs[0], idxs[-1]+1).data
    return F.interpolate(x, size=(H,W), mode='bilinear', antialias=True).permute(0,2,3,1).numpy() if size else x.permute(0,2,3,1).numpy()

def decord(path, idxs, size=True):
    from decord import VideoReader as Decord
    kw = dict(width=W, height=H) if size else {}
    return Decord(str(path), num_threads=1, **kw).get_batch(list(idxs)).asnumpy()

def ours(path, idxs, size=True):
    with VideoReader(path) as v: return v.frames(idxs, (H,W) if size else None).permute(1,2,3,0).numpy()

readers = {f.__name__: f for f,needs in ((authors,'cv2'),(opencv,'cv2'),(pyav_naive,'av'),(torchcodec,'torchcodec'),(decord,'decord'),(ours,'av')) if find_spec(needs)}

def ms(f, *args):
    t = time.perf_counter()
    try: f(*args)
    except Exception: return float('nan')
    return (time.perf_counter()-t)*1e3

def is_right(f, path, full, rng):
    "Does `f` give the frames of a sequential decode, in three spans? Decoders may round differently, by a few levels"
    for _ in range(3):
        start = rng.randrange(len(full)-15)
        try: got = f(path, range(start, start+16), False)
        except Exception: return False
        if len(got)!=16 or any(a.shape!=b.shape or np.abs(a.astype(int)-b).mean()>3 for a,b in zip(got, full[start:])): return False
    return True

@call_parse(pos=['folder'])
def main(
    folder:str, # Videos
    n_files:int=24, # How many of them are timed and checked
    repeats:int=3, # Spans timed in each file and at each rate
    out:str=None, # Table to write, .csv
):
    "Compare readers on real files"
    rng = random.Random(0)
    files = get_video_files(folder)
    files = rng.sample(list(files), min(n_files, len(files)))
    times,right = [],dict.fromkeys(readers, 0)
    for path in files:
        with av.open(str(path)) as c: full = [f.to_ndarray(format='rgb24') for f in c.decode(video=0)]
        for name,f in readers.items(): right[name] += is_right(f, path, full, random.Random(1))
        for s in (1,2,4,8):
            for _ in range(repeats if len(full)>=16*s else 0):
                start = rng.randrange(len(full)-16*s+1)
                for name,f in readers.items(): times.append((name, s, ms(f, path, range(start, start+16*s))))
    df = pd.DataFrame(times, columns=['reader','s','ms']).pivot_table(index='reader', columns='s', values='ms', aggfunc=median).loc[list(readers)]
    df.columns = [f'ms, s={s}' for s in df]
    df['times as fast as authors'] = (df.iloc[0].sum()/df.sum(axis=1)).round(2)
    df['files right'] = [f'{right[o]} of {len(files)}' for o in df.index]
    print(df.round(1).to_string())
    if out: df.round(1).to_csv(out)
