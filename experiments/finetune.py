"""What encoders are worth when they are fine-tuned with some of the labels, pretrained as `pretexts.py` pretrains them.

`python experiments/finetune.py FOLDER --out experiments/results/NAME/finetuned.csv` pretrains on the training videos of split 1 without their labels, fine-tunes on a share of them with labels, and tests with ten averaged clips of each test video.
A run is a row, written when it is done, and not done again. The encoders are kept, so that another share of the labels does not pretrain again."""
from fastcore.script import call_parse
from prp_fastai.all import *
from pretexts import pretrained
from tables import fit,add_rows,done
import itertools,tempfile

def labelled(df, share, seed):
    "The test videos of `df`, and `share` of the training videos of each class"
    return pd.concat([df[~df.is_test].groupby('label').sample(frac=share, random_state=seed), df[df.is_test]])

def kept_encoder(name, arch, seed, df, how, folder, cache, num_workers):
    "Encoder of a pretext from `folder`, where it is pretrained into if it is not there; random weights are drawn"
    if name=='random': return pretrained(name, arch, seed, df, how, cache, num_workers)[0]
    fname = folder/f'{"-".join(map(str, (name, arch, seed, how["width"], how["size"], how["clips"])))}.safetensors'
    if not fname.exists():
        source,told,_ = pretrained(name, arch, seed, df, how, cache, num_workers)
        print(fname.name, told, flush=True)
        save_tensors(source, card_of(source), fname)
    return load_encoder(fname)

def tuned(source, df, seed, epochs, how, cache, num_workers):
    "Accuracy on the test videos after fine-tuning, in %, and what each epoch measured"
    set_seed(seed)
    dls = VideoDataLoaders.from_df(df, label_col='label', fn_col='path', test_col='is_test', size=how['size'], bs=how['bs'], by_group=True, valid_pct=.1, cache=cache, num_workers=num_workers, seed=seed)
    learn = video_learner(dls, encoder=source, opt_func=prp_adamw)
    with tempfile.TemporaryDirectory() as tmp: curve = fit(learn, epochs, how['lr'], Path(tmp))
    return 100*recognition_accuracy(learn),curve

@call_parse(pos=['source'])
def main(
    source:str, # Dataset in UCF101's shape
    out:str='finetuned.csv', # Table that gets the rows; the curves are beside it, in `finetuned_curves.csv`
    encoders:str='encoders', # Folder that keeps pretrained encoders
    names:str='random,rate,rate+recon', # Pretexts, in the order of the runs
    archs:str='c3d', # Encoders
    seeds:str='0,1,2', # All runs are done with each
    labels:str='0.1,1', # Shares of the training videos that have a label
    epochs:str='100,30', # Of fine-tuning, for each share
    cache:str=None, # Folder that `prp-cache` filled for this size
    width:float=.125, # Factor on the channels of the encoders
    size:int=56, # Side of the crop in pixels
    clips:int=30, # Clips that each training video gives to the pretext
    lr:float=.002, # Highest learning rate of fine-tuning, one cycle of AdamW
    bs:int=16, # Clips in a batch of fine-tuning
    num_workers:int=1, # Processes that read videos
):
    "Fine-tune what the page of pretexts compares"
    df,out,encoders = read_ucf101(source, 1),Path(out),Path(encoders)
    for o in (out.parent,encoders): o.mkdir(parents=True, exist_ok=True)
    how = dict(width=width, size=size, clips=clips, lr=lr, bs=bs)
    for seed,arch,name,(share,n) in itertools.product(map(int, seeds.split(',')), archs.split(','), names.split(','), zip(labels.split(','), epochs.split(','), strict=True)):
        key = {k: str(v) for k,v in dict(pretext=name, arch=arch, seed=seed, labels=share, epochs=n, **how).items()}
        if done(out, key): continue
        encoder = kept_encoder(name, arch, seed, df, how, encoders, cache, num_workers)
        acc,curve = tuned(encoder, labelled(df, float(share), seed), seed, int(n), how, cache, num_workers)
        row = key | {'fine-tuned': round(acc, 3)}
        print(', '.join(f'{k} {v}' for k,v in row.items()), flush=True)
        add_rows(out, pd.DataFrame([row]))
        add_rows(out.with_name('finetuned_curves.csv'), curve.round(5).assign(**key))
