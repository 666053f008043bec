"""Every pretext on one dataset in UCF101's shape: what it learned of its own task, and what its encoder is worth, from the same number of clips.

`python experiments/pretexts.py FOLDER --out experiments/results/NAME/pretexts.csv` pretrains on the training videos of split 1 without their labels, and measures on its test videos.
A run is a row, written when it is done, and not done again. `random` and `supervised` are brackets: weights as they are drawn, and the same encoder trained with all labels."""
from fastcore.script import call_parse
from prp_fastai.all import *
from tables import fit,told,kept,add_rows,done
import tempfile

def epochs_of(recipe, clips):
    "Passes over the videos in which each gives `clips` clips"
    return max(1, round(clips/n_drawn.get(recipe.clips, 1)))

def trained(name, recipe, train, how, cache, num_workers):
    "Learner of a pretext, trained, and its minutes"
    cls,learner = (PRPDataLoaders,prp_learner) if recipe.clips=='one' else (ClipsDataLoaders,pretext_learner)
    dls = cls.from_files(train, recipe=recipe, by_group=True, valid_pct=.1, cache=cache, num_workers=num_workers)
    learn,start = learner(dls),time.perf_counter()
    with tempfile.TemporaryDirectory() as tmp: curve = fit(learn, epochs_of(recipe, how['clips']), recipe.lr, Path(tmp))
    return learn,(time.perf_counter()-start)/60,curve

def own_task(learn, test):
    "How often each head is right on test videos, and how often guessing is, in %"
    scores = told(learn, test)
    if learn.recipe.clips=='one': right,chance = {o: scores[f'{o}_accuracy'] for o in learn.recipe.heads if o=='rate'},dict(rate=1/learn.dls.c)
    else: right,chance = {o: scores[f'{o}_accuracy'] for o in learn.recipe.heads},pretext_chance(learn)
    first = next(iter(right), None)
    said = ', '.join(f'{o} {100*v:.1f} (chance {100*chance[o]:.1f})' for o,v in right.items())
    return {} if first is None else {'right': 100*right[first], 'by chance': 100*chance[first], 'heads': said}

def supervised(df, arch, seed, how, cache, num_workers):
    "Encoder trained with all labels of the training videos, and its minutes"
    dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', size=how['size'], bs=how['bs'], by_group=True, valid_pct=.1, cache=cache, num_workers=num_workers, seed=seed)
    learn,start = video_learner(dls, arch, width=how['width'], opt_func=prp_adamw),time.perf_counter()
    with tempfile.TemporaryDirectory() as tmp: fit(learn, how['clips'], .004, Path(tmp))
    return learn.model.encoder,(time.perf_counter()-start)/60

def pretrained(name, arch, seed, df, how, cache, num_workers, **changed):
    "Encoder of a pretext with some fields of its recipe `changed`, or of a bracket; what it learned of its own task, in %, and its curve"
    set_seed(seed)
    if name=='random': return reinitialized(create_encoder(arch, how['width']), seed),{},None
    if name=='supervised':
        source,minutes = supervised(df, arch, seed, how, cache, num_workers)
        return source,dict(minutes=minutes),None
    recipe = get_recipe(name, arch=arch, width=how['width'], size=how['size'], seed=seed, **changed)
    learn,minutes,curve = trained(name, recipe, df[~df.is_test].path.tolist(), how, cache, num_workers)
    return learn.model.encoder,dict(minutes=minutes) | own_task(learn, [Path(o) for o in df[df.is_test].path]),curve

def measure(name, arch, seed, df, how, cache, num_workers, **changed):
    "What a pretext or bracket learned and is worth, in %, and its curve"
    source,res,curve = pretrained(name, arch, seed, df, how, cache, num_workers, **changed)
    reader = OpenVideo(manifest_of(df.path.tolist()), cache, frame_size(how['size']))
    clips = dict(size=how['size'], clip_len=16, num_workers=num_workers, reader=reader)
    probes = probe_table(source, df, clips=5, baseline=False, **clips).loc['pretrained']
    return res | {'linear probe': 100*probes['linear'], 'neighbours vote': 100*probes['knn'], **retrieval_table(source, df[~df.is_test], df[df.is_test], baseline=False, **clips)[0].loc['pretrained']},curve

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='pretexts', # Folder for `pretexts.csv` and `pretext_curves.csv`
    names:str='random,rate,rate+recon,speed,pace,relative,rank,order,warp,contrast,supervised', # Pretexts and brackets, in the order of the runs
    archs:str='c3d', # Encoders
    seeds:str='0,1,2', # All runs are done with each
    cache:str=None, # Folder that `prp-cache` filled for this size
    width:float=.125, # Factor on the channels of the encoders
    size:int=56, # Side of the crop in pixels
    clips:int=30, # Clips that each training video gives, whatever the pretext
    bs:int=16, # Clips in a batch of the supervised bracket
    num_workers:int=1, # Processes that read videos
):
    "Run what the page of pretexts compares"
    df,out = read_ucf101(source, 1),Path(out)
    out.mkdir(parents=True, exist_ok=True)
    how = dict(width=width, size=size, clips=clips, bs=bs)
    for seed in seeds.split(','):
        for arch in archs.split(','):
            for name in names.split(','):
                key = {k: str(v) for k,v in dict(pretext=name, arch=arch, seed=seed, width=width, size=size, clips=clips).items()}
                if done(out/'pretexts.csv', key): continue
                row,curve = measure(name, arch, int(seed), df, how, cache, num_workers)
                print(', '.join(f'{k} {v}' for k,v in (key|row).items()), flush=True)
                add_rows(out/'pretexts.csv', pd.DataFrame([key | {k: v if isinstance(v, str) else round(v, 3) for k,v in row.items()}]))
                if curve is not None: add_rows(out/'pretext_curves.csv', curve.round(5).assign(**key))
