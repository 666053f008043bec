"""The paper's tables 1 to 5 in small, and what each change of the training gains: what pretraining learned, and what it is worth, on a dataset in UCF101's shape.

`python experiments/tables.py FOLDER --out experiments/results/NAME --cache CACHE --jobs 2` pretrains on the training videos of split 1, without their labels, and measures on its test videos.
A run is a row of `runs.csv`, written when it is done, and not done again; one that was stopped is resumed. `curves.csv` keeps what each epoch of it measured, `baselines.csv` what knowing nothing gives, `baselines_valid.csv` the same in validation of seed 0.
The paper's encoder, for a GPU, is `--width 1 --size 112 --speed channels_last,fold,bf16`."""
from multiprocessing import get_context,set_start_method
from fastcore.script import call_parse
from prp_fastai.all import *
from concurrent.futures import ProcessPoolExecutor,as_completed
import re,shutil

heads = {'DP': ('rate',), 'GP': ('recon',), 'DG-P': ('rate','recon')}

class _UnitGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x.view_as(x)
    @staticmethod
    def backward(ctx, g): return g/g.norm().clamp(min=1e-20)

class UnitGradients(Callback):
    "Both heads pull at the encoder with gradients of norm 1"
    def before_fit(self): self.hooks = [getattr(self.model, o).register_forward_pre_hook(lambda m, args: (_UnitGradient.apply(args[0]), *args[1:])) for o in self.model.heads]
    def after_fit(self):
        for o in self.hooks: o.remove()

def small(**kwargs): return dict(preset='small', **kwargs)
trainings = {'paper': dict(), '+ linear end': dict(final='linear'), '+ AdamW': small(mean_colour=False, lambda_d=.1), '+ mean colour': small(lambda_d=.1),
             'small': small(), 'small, residual': small(final='residual', mean_colour=False), 'small, skip': small(final='skip'), 'small, unit gradients': small(cbs=UnitGradients)}

def runs_of(table, rates=(1,2,4,8), clip_len=16, encoders=('c3d','r3d','r2plus1d')):
    "The runs that a table sets side by side: `training`, or the number of one of the paper; 3 stands for 3 to 5"
    def run(method, encoder='c3d', rates='', recon_rate='', attn='', clip_len=clip_len, training='small'): return locals()
    def gp(recon_rate, attn='dpau', **kwargs): return run('GP', rates=rates, recon_rate=recon_rate, attn=attn, **kwargs)
    def dgp(encoder='c3d', **kwargs): return run('DG-P', encoder, rates, 2, 'dpau', **kwargs)
    if table=='training': return [dgp(training=o) for o in trainings]
    if table=='1': return [run('DP', rates=(1,2,4,8,16)[:n]) for n in (2,3,4,5)]
    if table=='2': return [run('random', training=''), run('DP', rates=rates), dgp(), gp(2), gp(2, training='small, residual'), gp(1), gp(1, None), gp(4)]
    if table=='3': return [o for e in encoders for o in (run('random', e, training=''), run('DP', e, rates), dgp(e))]
    raise ValueError(f'table must be training, 1, 2 or 3, got {table!r}')

def is_tuned(run): return run['training'] in ('','small') and (run['method']!='GP' or run['recon_rate']==2)

def fit(learn, epochs, lr, folder):
    "Train `learn` by one cycle, without progress bars, or resume it from `folder`; what each epoch measured"
    learn.recorder.train_metrics = True
    with learn.no_logging(): learn.remove_cb(ProgressCallback).fit_one_cycle(epochs, lr, cbs=Resume(folder))
    return pd.read_csv(folder/'history.csv').drop(columns='time')

def told(learn, files, draws=4):
    "What `learn` scores on `draws` clips of each of `files`, by metric"
    dl,rated,names,res = learn.dls.test_dl(files),item_tfm(learn.dls, PlaybackRate),['loss', *learn.metrics.attrgot('name')],[]
    for rated.seed in range(draws): res.append(learn.validate(dl=dl))
    return dict(zip(names, np.mean(res, 0).tolist()))

def loaders(df, how, cache, num_workers, **kwargs):
    "What pretraining learns from: the training videos of `df`"
    return PRPDataLoaders.from_files(df[~df.is_test].path.tolist(), size=how['size'], bs=how['bs'], by_group=True, valid_pct=.1, cache=cache, num_workers=num_workers, **kwargs)

def measure(run, df, folder, seed, how, cache, num_workers):
    "What `run` learned and is worth, in %, and its curves; `folder` keeps it until it is done"
    sampling = {k: v for k,v in run.items() if v!=''}
    method,encoder,training = run['method'],run['encoder'],sampling.pop('training', None)
    for k in ('method','encoder'): del sampling[k]
    train,test,res,curves = df[~df.is_test],df[df.is_test],{},[]
    set_seed(seed)
    if method=='random': source = reinitialized(create_encoder(encoder, how['width']), seed)
    else:
        dls = loaders(df, how, cache, num_workers, seed=seed, **sampling)
        learn = prp_learner(dls, encoder, heads[method], width=how['width'], speed=how['speed'], **trainings[training])
        curves.append(fit(learn, how['epochs'], how['lr'] or learn.lr, folder/'pretrained').assign(stage='pretraining'))
        scores,source = told(learn, [Path(o) for o in test.path]),learn.model.encoder
        if 'rate_accuracy' in scores: res['rate accuracy'] = 100*scores['rate_accuracy']
        if 'loss_g' in scores: res['loss_g'] = scores['loss_g']
    reader = OpenVideo(manifest_of(df.path.tolist()), cache, frame_size(how['size']))
    clips = dict(size=how['size'], clip_len=run['clip_len'], num_workers=num_workers, reader=reader)
    probes = probe_table(source, df, clips=5, baseline=False, **clips).loc['pretrained']
    res |= {'linear probe': 100*probes['linear'], 'neighbours vote': 100*probes['knn'], **retrieval_table(source, train, test, baseline=False, **clips)[0].loc['pretrained']}
    if how['tune_epochs'] and is_tuned(run):
        set_seed(seed)
        dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', size=how['size'], clip_len=run['clip_len'], bs=how['bs'], by_group=True, valid_pct=.1, cache=cache, num_workers=num_workers, seed=seed)
        tuned = video_learner(dls, encoder=source, opt_func=prp_adamw, speed=how['speed'])
        curves.append(fit(tuned, how['tune_epochs'], how['tune_lr'], folder/'tuned').assign(stage='fine-tuning'))
        res['fine-tuned'] = 100*recognition_accuracy(tuned)
    res['device'] = torch.cuda.get_device_name() if default_device().type=='cuda' else 'CPU'
    return res,pd.concat(curves) if curves else None

def kept(fname):
    "The rows of `fname`, as text"
    return pd.read_csv(fname, dtype=str, keep_default_na=False) if fname.exists() else pd.DataFrame()

def add_rows(fname, rows):
    "Add `rows` to the table in `fname`"
    pd.concat([kept(fname), rows]).to_csv(tmp:=fname.with_suffix('.tmp'), index=False)
    tmp.replace(fname)

def add_baselines(out, df, how, rates, clip_len, cache, num_workers):
    "Write what a reconstruction that knows nothing scores on the test videos and in validation of seed 0, and what their lengths say of the rate"
    for name in ('baselines','baselines_valid'):
        if (fname:=out/f'{name}.csv').exists(): continue
        dls = loaders(df, how, cache, num_workers, seed=0, rates=rates, clip_len=clip_len)
        dl = dls.test_dl(df[df.is_test].path.map(Path).tolist()) if name=='baselines' else dls.valid
        known = recon_baselines(dl).round(5)
        known['rate accuracy from length'] = round(100*rate_chance(dls, list(dl.dataset.items)), 2)
        known.rename('value').rename_axis('baseline').to_csv(fname)

def done(fname, key):
    "Whether `fname` has a row of this run"
    rows = kept(fname)
    return len(rows) and (rows[[*key]]==pd.Series(key)).all(axis=1).any()

def _readers_fork(): multiprocessing.set_start_method('fork', force=True)

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='tables', # Folder for `runs.csv`, `curves.csv`, `baselines.csv` and `baselines_valid.csv`
    tables:str='2,training,3', # `training`, and tables of the paper, in the order of the runs; 3 stands for 3 to 5
    encoders:str='c3d,r3d,r2plus1d', # Those of table 3
    seeds:str='0,1,2', # All runs are done with each
    rates:str='1,2,4,8', # Of all tables but 1, which has up to five
    clip_len:int=16, # Frames in a clip; table 1 has a rate of 16, for which videos of 200 frames leave 8
    cache:str=None, # Folder that `prp-cache` filled for this size
    width:float=.125, # Factor on the channels of the encoders
    size:int=56, # Side of the crop in pixels
    epochs:int=30, # Of pretraining
    lr:float=None, # Highest learning rate of pretraining; that of each training where not given
    tune_epochs:int=30, # Of fine-tuning; 0 leaves it out
    tune_lr:float=.002, # Highest learning rate of fine-tuning, one cycle of AdamW
    bs:int=16, # Clips in a batch
    speed:str='auto', # Speed-ups by name (`speed_cbs`)
    num_workers:int=1, # Processes of each run that read videos
    jobs:int=1, # Runs side by side
):
    "Run what the tables compare"
    df,out,rates = read_ucf101(source, 1),Path(out),tuple(map(int, rates.split(',')))
    out.mkdir(parents=True, exist_ok=True)
    how = dict(width=width, size=size, epochs=epochs, lr=lr or '', tune_epochs=tune_epochs, tune_lr=tune_lr, bs=bs, speed=speed)
    add_baselines(out, df, how, rates, clip_len, cache, num_workers)
    keys = {}
    for table in tables.split(','):
        for seed in map(int, seeds.split(',')):
            for run in runs_of(table, rates, clip_len, encoders.split(',')): keys[str(run|dict(seed=seed))] = run,seed
    def keep(key, row, curves):
        print(', '.join(f'{k} {v}' for k,v in (key|row).items()), flush=True)
        add_rows(out/'runs.csv', pd.DataFrame([key | {k: v if isinstance(v, str) else round(v, 5) for k,v in row.items()}]))
        if curves is not None: add_rows(out/'curves.csv', curves.round(5).assign(**{k: v for k,v in key.items() if k not in how}))
        shutil.rmtree(folder_of(key), ignore_errors=True)
    def folder_of(key): return out/'unfinished'/re.sub(r'[^\w.]+', '-', ' '.join(key.values()))
    todo = []
    for run,seed in keys.values():
        key = {k: str(v) for k,v in (run | dict(seed=seed) | how).items()}
        if not done(out/'runs.csv', key): todo.append((key, (run, df, folder_of(key), seed, how, cache, num_workers)))
    print(f'{len(todo)} of {len(keys)} runs to do', flush=True)
    if jobs==1:
        for key,args in todo: keep(key, *measure(*args))
        return
    with ProcessPoolExecutor(jobs, multiprocessing.get_context('spawn'), _readers_fork) as pool:
        futures = {pool.submit(measure, *args): key for key,args in todo}
        for o in as_completed(futures): keep(futures[o], *o.result())
