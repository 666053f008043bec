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

def film(learn, files, fname):
    "Timeline of a film of `files`, the second at which each ends, and their classes"
    ends = joined(files, fname)
    return learn.timeline(fname, every=.5),ends,np.array(files.map(parent_label))

def window_scores(learn, files, table, ends, true):
    "Accuracy of windows that lie in one video, and of clips of the same videos"
    first,last = (np.searchsorted(ends, table[o]-e).clip(0, len(files)-1) for o,e in (('start',-1e-6),('end',1e-3)))
    whole = first==last
    hit = (table.label.to_numpy()==true[first])[whole]
    logits = clip_logits(learn, files, 10, num_workers=0)
    clips = logits.argmax(-1).numpy()==np.array([list(learn.dls.vocab).index(o) for o in true])[:,None]
    return dict(windows=hit.mean(), n_windows=len(hit), clips=clips.mean())

def boundary_scores(found, label_at, ends, true):
    "Of the boundaries `found`, and of the labels that `label_at` gives at each tenth of a second"
    real = ends[:-1][true[:-1]!=true[1:]]
    off,t = np.abs(found[:,None]-real),np.arange(0, ends[-1]-.05, .1)
    right = label_at(t)==true[np.searchsorted(ends, t, 'right')]
    return dict(boundaries=len(real), found=len(found), off=np.median(off.min(0)), within=(off.min(0)<.64).mean(),
                true=(off.min(1)<.64).mean(), right=right.mean())

def at_each_price(films, prices):
    "Mean scores of films for each price of a change; and of as many boundaries as there are, evenly spaced, and one label"
    rows = []
    for table,ends,true in films:
        for price in prices:
            o = events(table, price)
            def label_at(t): return o.label.to_numpy()[np.searchsorted(o.end, t, 'right').clip(0, len(o)-1)]
            rows.append(dict(change=price, **boundary_scores(o.end.to_numpy()[:-1], label_at, ends, true)))
        n = (true[:-1]!=true[1:]).sum()
        commonest = pd.Series(true).mode()[0]
        even = boundary_scores(ends[-1]*np.arange(1, n+1)/(n+1), lambda t: np.full(len(t), commonest), ends, true)
        rows.append(dict(change='evenly spaced', **even))
    return pd.DataFrame(rows).groupby('change', sort=False).mean().reset_index()

def hour(learn, files, folder):
    "A timeline of an hour, with torch and without, each in a process of its own: its speed, and its resident memory before and at most"
    parts = [read_frames(f, range(probe(f).n_frames), size=(120,160)) for f in files]
    frames = np.moveaxis(torch.cat(parts, 1).numpy(), 0, -1)
    with av.open(str(folder/'hour.mp4'), 'w') as out:
        stream = out.add_stream('libx264', rate=25)
        stream.width,stream.height,stream.pix_fmt = 160,120,'yuv420p'
        for i in range(90_000): out.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[i%len(frames)]), format='rgb24')))
        out.mux(stream.encode(None))
    made = save_model(learn, folder/'model.safetensors'),to_onnx(learn, folder/'model.onnx')
    loads = f"load_model({str(made[0])!r})",f"OnnxClassifier({str(made[1])!r}, threads=1)"
    return [dict(runtime=runtime, **in_own_process(module, load, folder/'hour.mp4'))
            for runtime,module,load in zip(('torch','onnxruntime'), ('prp_fastai.all','prp_fastai.without_torch'), loads)]

def in_own_process(module, load, film):
    "Speed of the timeline of `film` on one thread, and resident memory once the model is there and at most"
    code = f"""import time
from {module} import *
def mb(key): return next(int(o.split()[1])/1024 for o in open('/proc/self/status') if o.startswith(key))
model = {load}
before,start = mb('VmRSS'),time.perf_counter()
table = model.timeline({str(film)!r})
print(time.perf_counter()-start, table.end.max(), before, mb('VmHWM'))"""
    out = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, check=True,
                         env={**os.environ, 'OMP_NUM_THREADS':'1'}).stdout
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
    valid = L(learn.dls.valid.items).map(Path)
    with tempfile.TemporaryDirectory() as d:
        d,rng = Path(d),np.random.default_rng(42)
        def draw(files): return files[rng.permutation(len(files))[:45].tolist()]
        test_files = [draw(test) for _ in range(n_films)]
        films = [film(learn, o, d/'film.mp4') for o in test_files]
        windows = pd.DataFrame([window_scores(learn, o, *f) for o,f in zip(test_files, films)])
        prices = (0,1,2,4,6,8,12)
        chosen = at_each_price([film(learn, draw(valid), d/'film.mp4') for _ in range(2)], prices)
        tables = dict(timeline_films=windows, timeline_validation=chosen, timeline_boundaries=at_each_price(films, prices),
                      timeline_hour=pd.DataFrame(hour(learn, test[:45], d)))
        for name,o in tables.items():
            print(o.round(3).to_string())
            o.to_csv(results/f'{name}.csv', index=False)
