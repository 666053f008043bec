"""How well does a rate model tell how fast a video plays?

`prp-render mocap15` renders the videos, and `python experiments/sample_model.py mocap15 sample-rate` fits the packaged rate model on training videos of split 1. `python experiments/rates.py --path mocap15` takes its test videos,
plays them at half, equal and double speed, joins some into films with stretches at other speeds, and compares the model with the same fit on nothing but the mean difference of neighbouring frames.
`--fit` and `--test` take lists of other videos, the layer is then fitted on the former: `--root ucf101/video --fit ucf101/split/trainlist01.txt --test ucf101/split/testlist01.txt --only YoYo --epochs 100 --name rates_yoyo`."""
from fastcore.script import call_parse
from prp_fastai.all import *
import tempfile

results = Path(__file__).parent/'results'

class FrameDifference(nn.Module):
    "Logarithm of the mean difference of neighbouring frames, as a feature map with one channel"
    num_features = 1
    def __init__(self):
        super().__init__()
        self.unit = nn.Parameter(torch.ones(()))
    def forward(self, x): return (x.diff(dim=2).abs().mean((1,2,3,4))+1e-4).log().view(-1,1,1,1,1)*self.unit

def played(x, rate):
    "Frames (3,t,h,w) played at `rate`, 1/2 (blended, as the paper's targets are), 1 or 2"
    return sample_target(x, 1, 2) if rate==.5 else x[:,::int(rate)]

def all_frames(path):
    with VideoReader(path) as v: return v.frames(range(len(v)), (120,160))

def whole_videos(models, files, folder):
    "A row for each video, rate and model"
    for f in progress(files):
        x = all_frames(f)
        for rate in (.5,1,2):
            y = write_video(folder/'played.mp4', played(x, rate), fps=25, crf=18)
            for name,model in models.items():
                try: got = rate_of(model, y)
                except VideoError: continue
                yield dict(video=f.stem, rate=rate, model=name, got=got['rate'], sure=got['sure'], octaves=abs(np.log2(got['rate']/rate)))

def film_of(files, speeds, fname):
    "Join videos, each at its speed; true (start, end, rate) in seconds"
    parts = [played(all_frames(f), s) for f,s in zip(files, speeds)]
    write_video(fname, torch.cat(parts, 1), fps=25, crf=18)
    ends = np.cumsum([o.shape[1] for o in parts])/25
    return list(zip(np.r_[0, ends[:-1]], ends, speeds))

def overlap(true, found, kind, rate):
    "Intersection over union, in seconds, of true and found stretches of one kind"
    t = np.arange(0, true[-1][1], .02)
    a = np.any([(t>=s) & (t<e) for s,e,r in true if r==rate], 0)
    at = [(t>=o.start) & (t<o.end) for o in found.itertuples() if o.kind==kind]
    b = np.any(at, 0) if at else np.zeros_like(a)
    return (a&b).sum()/(a|b).sum()

def films(models, files, folder, n):
    "A row for each film, kind of stretch and model"
    speeds = [1,1,2,2,2,1,1,.5,.5,1,1]
    for i in progress(range(n)):
        some = np.random.default_rng(i).choice(len(files), len(speeds), replace=False)
        true = film_of([files[o] for o in some], speeds, folder/'film.mp4')
        for name,model in models.items():
            found = rate_segments(rate_curve(model, folder/'film.mp4'))
            for kind,rate in (('slow motion',.5),('fast forward',2)):
                yield dict(film=i, model=name, kind=kind, iou=overlap(true, found, kind, rate))

def trained_on(files, epochs, folder):
    "The packaged encoder, trained further on rates of other videos"
    cache_videos(files, folder, frame_size(56))
    dls = PRPDataLoaders.from_files(files, size=56, bs=16, cache=folder, num_workers=1, valid_pct=.1)
    set_seed(42)
    learn = prp_learner(dls, load_encoder('sample'), heads='rate', preset='small')
    with learn.no_logging(): learn.remove_cb(ProgressCallback).fit_one_cycle(epochs, 4e-3)
    print(f'rate accuracy after {epochs} epochs: {learn.validate()[1]:.2f}')
    set_card(learn)
    return learn.model.encoder

def summary(videos, stretches):
    "Medians of errors in octaves, and mean IoU, a column for each model"
    a = videos.groupby(['model','rate']).agg(octaves=('octaves','median'), sure=('sure','mean')).unstack('model')
    clear = videos[videos.sure].groupby(['rate','model']).octaves.median().unstack('model')
    a = a.join(pd.concat({'octaves, sure': clear}, axis=1))
    return a.round(2), stretches.groupby(['kind','model']).iou.mean().unstack('model').round(2)

@call_parse
def main(
    path:Path=None, # Folder of `prp-render`
    root:Path=None, # Folder of other videos
    fit:Path=None, # List of videos in it to fit on
    test:Path=None, # List of videos in it to test on
    only:str='', # Part of the paths of the videos that are kept
    epochs:int=0, # Of training the encoder further, on the videos to fit on
    n:int=150, # Test videos, drawn
    n_films:int=10, # Films of eleven test videos
    name:str='rates', # Of the tables in `experiments/results`
):
    "Measure a rate model beside the mean difference of frames"
    root,fit,test = root or path/'video',fit or path/'split/trainlist01.txt',test or path/'split/testlist01.txt'
    train,files = (L(list_videos(o, root=root, allow_missing=bool(only)).path.map(Path).tolist()).filter(lambda o: only in str(o))
                   for o in (fit,test))
    rng = np.random.default_rng(42)
    train,files = (L(o[i] for i in sorted(rng.permutation(len(o))[:k])) for o,k in ((train,320),(files,n)))
    base = FrameDifference()
    base.card = card_of(load_encoder('sample'))
    with tempfile.TemporaryDirectory() as d:
        encoder = trained_on(train, epochs, Path(d)/'cache') if epochs else load_encoder('sample')
        models = {'PRP': load_model('sample-rate') if path else fit_rate_model(encoder, train, draws=20),
                  'frame difference': fit_rate_model(base, train)}
        videos = pd.DataFrame(list(whole_videos(models, files, Path(d))))
        stretches = pd.DataFrame(list(films(models, files, Path(d), n_films)))
    for o in summary(videos, stretches): print(o.to_string())
    videos.to_csv(results/f'{name}_videos.csv', index=False)
    stretches.to_csv(results/f'{name}_films.csv', index=False)
