"""Train the models that the library contains: slim C3Ds that have learned from drawn videos.

`prp-render mocap15` renders the videos. `python experiments/sample_model.py mocap15 sample --out run` trains `load_model('sample')` on the training videos of split 1, half an hour on two cores, or resumes a run that was stopped,
and writes the weights, with 16 bits, into the package; `sample-recon` takes an hour. `sample-rate` fits rates to the encoder of `sample`, in minutes. The packaged videos are test videos of that split."""
from fastcore.script import call_parse
from prp_fastai.all import *
from prp_fastai.cli.pretrain import prp_pretrain

settings = {'sample': dict(heads='rate', epochs=60), 'sample-recon': dict(epochs=70, final='residual', mean_colour=False)}

@call_parse
def main(
    path:Path, # Folder of `prp-render`
    name:str, # `sample`, `sample-recon` or `sample-rate`
    out:Path=Path('sample_run'), # Folder of the run
    speed:str='auto', # As in `prp-pretrain`
    cache:str=None, # As in `prp-pretrain`
):
    "Train a packaged model"
    train,test = (str(path/f'split/{o}list01.txt') for o in ('train','test'))
    if name=='sample-rate':
        files = L(list_videos(train, root=path/'video').path.tolist())
        return print(save_model(fit_rate_model(load_encoder('sample'), files).half(), model_file(name)))
    learn = prp_pretrain(train, out=str(out), valid=test, root=str(path/'video'), recipe='small', width=.125, size=56,
                         num_workers=1, cache=cache, speed=speed, resume=(out/'last.pth').exists(), **settings[name])
    to = save_tensors(learn.model.half(), model_card(learn), model_file(name))
    print(to, f'{to.stat().st_size/1e6:.2f} MB')
