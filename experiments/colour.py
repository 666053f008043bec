"""How much of a clip's brightness and colour comes back in its reconstruction, for two ends of the decoder.

`python experiments/colour.py --out experiments/results/colour.csv` trains a slim C3D with the decoder alone on the packaged training videos, and reconstructs the packaged test videos, a minute a run on one core.
A row is written when it is measured, and not measured again."""
from fastcore.script import call_parse
from prp_fastai.all import *
from tables import add_rows,done,told
import tempfile

def mean_colours(learn):
    "Mean colours (n,3) of reconstructions and of their targets"
    learn.model.eval()
    with torch.no_grad(): pairs = [(learn.model(x)[-1], G) for x,_,G,_ in learn.dls.valid]
    return [torch.cat([o.as_subclass(Tensor).mean((2,3,4)) for o in os]) for os in zip(*pairs)]

def spread(colours):
    "How much clips differ in brightness, and in red minus green"
    return colours.mean(1).std().item(),(colours[:,0]-colours[:,1]).std().item()

@call_parse
def main(
    out:str='colour.csv', # Table that gets the rows
    finals:str='linear,residual,skip', # Ends of the decoder
    seeds:str='0,1,2', # All runs are done with each
    width:float=.125, # Factor on the channels of the encoder
    size:int=56, # Side of the crop in pixels
    epochs:int=40, # Passes over the 45 videos
):
    "Train decoders with different ends, and compare their colours with those of the clips"
    df,out = read_ucf101(sample_videos(), 1),Path(out)
    train,test = (df[df.is_test==o].path.tolist() for o in (False,True))
    for seed in map(int, seeds.split(',')):
        for final in finals.split(','):
            key = {k: str(v) for k,v in dict(final=final, seed=seed, width=width, size=size, epochs=epochs).items()}
            if done(out, key): continue
            set_seed(seed)
            recipe = get_recipe('small', heads=('recon',), final=final, mean_colour=final!='residual', width=width, size=size, epochs=epochs, bs=4, seed=seed)
            with tempfile.TemporaryDirectory() as cache:
                cache_videos(df.path.tolist(), cache, frame_size(size))
                learn = prp_learner(PRPDataLoaders.from_files(train, test, recipe=recipe, cache=cache, num_workers=0)).remove_cb(ProgressCallback)
                with learn.no_logging(): learn.fit_one_cycle(epochs, recipe.lr)
                (light,colour),(true_light,true_colour) = map(spread, mean_colours(learn))
                row = dict(loss_g=told(learn, test)['loss_g'], brightness=light/true_light, colour=colour/true_colour)
            print(', '.join(f'{k} {v}' for k,v in (key|row).items()), flush=True)
            add_rows(out, pd.DataFrame([key | {k: round(v, 5) for k,v in row.items()}]))
