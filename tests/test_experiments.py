"The scripts behind the pages run from an empty folder, write their rows, and do not repeat them"
from pathlib import Path
import pandas as pd
import pytest
from prp_fastai.read import write_video
from conftest import pattern
from test_cli import fork

scripts = Path(__file__).resolve().parent.parent/'experiments'
runs = dict(modern=(['--names','without colour,two speeds','--seeds','0','--clips','2','--width','.05','--size','24','--num-workers','0'], 'out.csv', ['without colour','two speeds'], 'change'),
            pretexts=(['--names','random,order','--seeds','0','--clips','3','--width','.05','--size','24','--num-workers','0'], 'out/pretexts.csv', ['random','order'], 'pretext'),
            finetune=(['--names','random,rate','--labels','.5,1','--epochs','1,1','--seeds','0','--clips','1','--width','.05','--size','24','--num-workers','0'], 'out.csv', ['random','random','rate','rate'], 'pretext'),
            tables=(['--tables','3','--encoders','c3d','--seeds','0','--rates','1,2','--clip-len','8','--epochs','1','--tune-epochs','1','--bs','4','--width','.05','--size','24','--num-workers','0'], 'out/runs.csv', ['random','DP','DG-P'], 'method'),
            colour=(['--seeds','0','--epochs','1','--width','.05','--size','24'], 'out.csv', ['linear','residual','skip'], 'final'),
            frozen=(['--size','32','--level','0','--nf','8','--epochs','1','--seeds','0'], 'out.csv', ['image network','random blocks','blocks trained by rate'], 'kind'))

@pytest.fixture(scope='module')
def dataset(tmp_path_factory):
    "Two classes of 24 groups in UCF101's shape, two groups of each to test on"
    path = tmp_path_factory.mktemp('dataset')
    names = [f'{c}/v_{c}_g{g:02}_c01.mp4' for c in ('Move','Turn') for g in range(1, 25)]
    for i,o in enumerate(names):
        (path/'video'/o).parent.mkdir(parents=True, exist_ok=True)
        write_video(path/'video'/o, pattern(130, 24, 32, seed=i), crf=28, threads=1)
    test = [o for o in names if '_g01' in o or '_g02' in o]
    (path/'split').mkdir()
    (path/'split/classInd.txt').write_text('1 Move\n2 Turn\n')
    (path/'split/testlist01.txt').write_text('\n'.join(test))
    (path/'split/trainlist01.txt').write_text('\n'.join(f'{o} {1+o.startswith("Turn")}' for o in names if o not in test))
    return path

@pytest.mark.parametrize('name', runs)
def test_rows_are_written_once(name, dataset, tmp_path, monkeypatch):
    options,fname,rows,column = runs[name]
    out = tmp_path/fname
    monkeypatch.chdir(tmp_path)
    def run():
        fork(scripts/f'{name}.py', *[dataset]*(name!='colour'), '--out', out.parent if name in ('pretexts','tables') else out, *options)
        return pd.read_csv(out)
    df = run()
    assert list(df[column])==rows and df[dict(finetune='fine-tuned', colour='colour').get(name, 'top1')].between(0, 100).all()
    if name=='colour': assert df.colour[0]<.5 and df.brightness[0]<.5 and abs(df.colour[1]-1)<.1
    assert run().equals(df)
    if name!='tables': return
    known = [pd.read_csv(tmp_path/f'out/{o}.csv', index_col='baseline').value for o in ('baselines','baselines_valid')]
    assert all(o['one colour']>=o['mean colour of each clip']>0 and o['rate accuracy from length']==50 for o in known)
    curves = pd.read_csv(tmp_path/'out/curves.csv')
    assert curves.groupby(['method','stage']).size().to_dict()=={('DG-P','fine-tuning'): 1, ('DG-P','pretraining'): 1, ('DP','fine-tuning'): 1, ('DP','pretraining'): 1, ('random','fine-tuning'): 1}
    assert not list((tmp_path/'out/unfinished').glob('*'))
