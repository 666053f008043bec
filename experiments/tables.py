"""The paper's tables 1 to 5 in small: what each kind of pretraining learned, and what it is worth, on a dataset in UCF101's shape.

`python experiments/tables.py FOLDER --out experiments/results/NAME` pretrains on the training videos of split 1, without their labels, and measures on its test videos: playback rates told,
accuracy after fine-tuning (ten clips), linear probe, nearest neighbours that vote, and retrieval (VCOP's protocol). A run is a row of `runs.csv`, written when it is done, and not done again; one that was stopped goes on where it was.
The defaults are for two processor cores and some ten minutes a run; the paper's encoder, for a GPU, is `--width 1 --size 112 --epochs 300 --tune-epochs 150 --tune-lr .001 --bs 8 --clip-len 16`."""
import pandas as pd,re,shutil
from fastcore.script import bool_arg,call_parse
from prp_fastai.all import *

heads = {'DP': ('rate',), 'GP': ('recon',), 'DG-P': ('rate','recon')}

def runs_of(table, clip_len, encoders):
    "The runs that a table of the paper sets side by side; 3 stands for 3 to 5"
    S = 1,2,4,8,16
    def run(method, encoder='c3d', rates='', recon_rate='', attn='', clip_len=16): return locals()
    def gp(recon_rate, attn='dpau'): return run('GP', rates=S[:4], recon_rate=recon_rate, attn=attn)
    def dgp(encoder): return run('DG-P', encoder, S[:4], 2, 'dpau')
    if table==1: return [run('DP', rates=S[:n], clip_len=clip_len) for n in (2,3,4,5)]
    if table==2: return [run('random'), dgp('c3d'), run('DP', rates=S[:4]), gp(2), gp(1), gp(1, None), gp(4)]
    return [o for e in encoders for o in (run('random', e), dgp(e))]

def fit(learn, epochs, lr, folder, bf16):
    "Train `learn` by one cycle, without progress bars; a run that was stopped goes on from `folder`"
    faster = [ChannelsLast3d(), FoldUpsampling()] + [BF16()]*bf16
    learn.remove_cb(ProgressCallback).fit_one_cycle(epochs, lr, cbs=[*faster, Resume(folder)])

def rates_told(learn, files, draws=4):
    "Share of clips whose rate `learn` tells, `draws` of each of `files`"
    dl,rated,told = learn.dls.test_dl(files),item_tfm(learn.dls, PlaybackRate),[]
    for rated.seed in range(draws): told.append(learn.validate(dl=dl)[1])
    return np.mean(told)

def measure(run, df, folder, seed, width, size, epochs, lr, tune_epochs, tune_lr, bs, bf16, cache, num_workers):
    "What `run` learned and is worth, in %; `folder` keeps it until it is done"
    sampling = {k: v for k,v in run.items() if v!=''}
    method,encoder,clip_len = map(sampling.pop, ('method','encoder','clip_len'))
    clips = dict(size=size, clip_len=clip_len, bs=bs, num_workers=num_workers)
    data = dict(clips, cache=cache, seed=seed, by_group=True, valid_pct=.1)
    train,test,res = df[~df.is_test],df[df.is_test],{}
    set_seed(seed)
    if method=='random': pretrained,source = None,reinitialized(create_encoder(encoder, width), seed)
    else:
        dls = PRPDataLoaders.from_files(train.path.tolist(), **sampling, **data)
        pretrained = source = prp_learner(dls, encoder, heads[method], width=width, final='linear')
        fit(pretrained, epochs, lr, folder/'pretrained', bf16)
        if 'rate' in heads[method]: res['rates told'] = rates_told(pretrained, [Path(o) for o in test.path])
    set_seed(seed)
    dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', **data)
    tuned = video_learner(dls, None if pretrained else encoder, encoder=pretrained, width=width)
    fit(tuned, tune_epochs, tune_lr, folder/'tuned', bf16)
    res['fine-tuned'] = recognition_accuracy(tuned)
    res['linear probe'],res['neighbours vote'] = probe_table(source, df, clips=3, baseline=False, **clips).loc['pretrained', ['linear','knn']]
    found,_ = retrieval_table(source, train, test, baseline=False, **clips)
    return {k: round(100*v, 2) for k,v in res.items()} | found.loc['pretrained'].round(2).to_dict()

def kept(fname):
    "The rows of `fname`, as text"
    return pd.read_csv(fname, dtype=str, keep_default_na=False) if fname.exists() else pd.DataFrame()

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='tables', # Folder for `runs.csv`
    tables:str='2,1,3', # Tables of the paper, in the order of the runs; 3 stands for 3 to 5
    encoders:str='c3d,r3d,r2plus1d', # Those of table 3
    seeds:str='0', # All runs are done with each
    clip_len:int=8, # Frames in a clip for table 1; with 16 as elsewhere, its rate of 16 takes videos of 256 frames
    cache:str=None, # Folder that `prp-cache` filled for this size
    width:float=.125, # Factor on the channels of the encoders
    size:int=56, # Side of the crop in pixels
    epochs:int=16, # Of pretraining
    lr:float=.01, # Highest learning rate of pretraining, one cycle
    tune_epochs:int=12, # Of fine-tuning
    tune_lr:float=.02, # Highest learning rate of fine-tuning, one cycle
    bs:int=16, # Clips in a batch
    bf16:bool_arg=True, # Train in bfloat16?
    num_workers:int=1, # Processes that read videos
):
    "Run what the tables of the paper compare"
    df,fname = read_ucf101(source, 1),Path(out)/'runs.csv'
    fname.parent.mkdir(parents=True, exist_ok=True)
    how = dict(width=width, size=size, epochs=epochs, lr=lr, tune_epochs=tune_epochs, tune_lr=tune_lr, bs=bs, bf16=bf16)
    for seed in map(int, seeds.split(',')):
        for run in (o for t in tables.split(',') for o in runs_of(int(t), clip_len, encoders.split(','))):
            key = {k: str(v) for k,v in (run | dict(seed=seed) | how).items()}
            rows = kept(fname)
            if len(rows) and (rows[[*key]]==pd.Series(key)).all(axis=1).any(): continue
            folder = fname.parent/'unfinished'/re.sub(r'[^\w.]+', '-', ' '.join(key.values()))
            row = key | measure(run, df, folder, seed, cache=cache, num_workers=num_workers, **how)
            print(', '.join(f'{k} {v}' for k,v in row.items()), flush=True)
            pd.concat([kept(fname), pd.DataFrame([row])]).to_csv(tmp:=fname.with_suffix('.tmp'), index=False)
            tmp.replace(fname)
            shutil.rmtree(folder)
