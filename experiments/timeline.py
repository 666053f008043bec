"""How good is a timeline? Windows against clips, boundaries, and an hour-long file.

`prp-render mocap15` renders the videos. `python experiments/timeline.py mocap15` fine-tunes the packaged encoder on training videos of split 1, joins test videos into films of five minutes with known boundaries,
and compares windows with clips of the same videos; then it measures the speed and the resident memory of a timeline of one hour."""
from fastcore.script import call_parse
from prp_fastai.all import *
import av,subprocess,tempfile

results = Path(__file__).parent/'results'

def classifier(path, epochs, seed=42):
    "The packaged encoder, fine-tuned on the training videos of split 1"
    set_seed(seed)
    train = list_videos(path/'split/trainlist01.txt', root=path/'video')
    df = pd.DataFrame(dict(path=train.path, label=L(train.path.tolist()).map(Path).map(parent_label)))
    dls = VideoDataLoaders.from_df(df, size=56, bs=16, num_workers=2, valid_pct=.1)
    learn = video_learner(dls, encoder='sample', opt_func=prp_adamw)
    with learn.no_logging(): learn.remove_cb(ProgressCallback).fit_one_cycle(epochs, 4e-3)
    return learn

def joined(files, fname):
    "One film of `files`, and the seconds at which each ends"
    n = [probe(o).n_frames for o in files]
    write_video(fname, torch.cat([read_frames(f, range(k), size=(120,160)) for f,k in zip(files, n)], 1), fps=25, crf=18)
    return np.cumsum(n)/25

def film_scores(learn, files, fname):
    "Accuracy of windows that lie in one video, and of clips of the same videos; how far boundaries are off"
    ends,true = joined(files, fname),np.array(files.map(parent_label))
    table = learn.timeline(fname, every=.5)
    first,last = (np.searchsorted(ends, table[o]-e).clip(0, len(files)-1) for o,e in (('start',-1e-6),('end',1e-3)))
    whole = first==last
    hit = (table.label.to_numpy()==true[first])[whole]
    logits = clip_logits(learn, files, 10, num_workers=0)
    clips = logits.argmax(-1).numpy()==np.array([list(learn.dls.vocab).index(o) for o in true])[:,None]
    found = events(table).end.to_numpy()[:-1]
    off = [np.abs(found-o).min() for o,(a,b) in zip(ends[:-1], zip(true, true[1:])) if a!=b and len(found)]
    return dict(windows=hit.mean(), n_windows=len(hit), clips=clips.mean(), boundaries=len(off), found=len(found),
                off=np.median(off), near=np.mean(np.array(off)<.64))

def hour(learn, files, folder):
    "Speed of a timeline of an hour in a process of its own, and its resident memory before and at most"
    parts = [read_frames(f, range(probe(f).n_frames), size=(120,160)) for f in files]
    frames = np.moveaxis(torch.cat(parts, 1).numpy(), 0, -1)
    with av.open(str(folder/'hour.mp4'), 'w') as out:
        stream = out.add_stream('libx264', rate=25)
        stream.width,stream.height,stream.pix_fmt = 160,120,'yuv420p'
        for i in range(90_000): out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[i%len(frames)]), format='rgb24')))
        out.mux(stream.encode(None))
    save_model(learn, folder/'model.safetensors')
    code = f"""import time
from prp_fastai.all import *
def mb(key): return next(int(o.split()[1])/1024 for o in open('/proc/self/status') if o.startswith(key))
learn = load_model({str(folder/'model.safetensors')!r})
before,start = mb('VmRSS'),time.perf_counter()
table = learn.timeline({str(folder/'hour.mp4')!r})
print(time.perf_counter()-start, table.end.max(), before, mb('VmHWM'))"""
    out = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, check=True).stdout
    took,length,before,most = map(float, out.split()[-4:])
    return dict(seconds=length, took=took, times_real_time=length/took, MB_before=before, MB_at_most=most)

@call_parse
def main(
    path:Path, # Folder of `prp-render`
    epochs:int=20, # Of fine-tuning
    n_films:int=5, # Of 45 test videos each, five minutes
):
    "Measure a timeline"
    learn,test = classifier(path, epochs),L(list_videos(path/'split/testlist01.txt', root=path/'video').path.tolist()).map(Path)
    with tempfile.TemporaryDirectory() as d:
        d,rng,rows = Path(d),np.random.default_rng(42),[]
        for _ in range(n_films): rows.append(film_scores(learn, test[rng.permutation(len(test))[:45].tolist()], d/'film.mp4'))
        for name,o in (('timeline_films', pd.DataFrame(rows)), ('timeline_hour', pd.DataFrame([hour(learn, test[:45], d)]))):
            print(o.round(3).to_string())
            o.to_csv(results/f'{name}.csv', index=False)
