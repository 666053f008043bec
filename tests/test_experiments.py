"The long runs of `experiments/`, in small"
import sys
from pathlib import Path
import pandas as pd,pytest
from prp_fastai.all import *
sys.path.insert(0, str(Path(__file__).resolve().parent.parent/'experiments'))
import tables

@pytest.fixture(scope='module')
def three_actions(tmp_path_factory):
    "Three classes of the packaged sample, in UCF101's shape"
    path,few = tmp_path_factory.mktemp('few'),('Kick','Roll','Walk')
    (path/'split').mkdir(), (path/'video').mkdir()
    for o in few: (path/'video'/o).symlink_to(sample_videos()/'video'/o)
    (path/'split/classInd.txt').write_text((sample_videos()/'split/classInd.txt').read_text())
    for o in ('trainlist01.txt','testlist01.txt'):
        lines = (sample_videos()/'split'/o).read_text().splitlines(keepends=True)
        (path/'split'/o).write_text(''.join(l for l in lines if l.startswith(few)))
    return path

toy = dict(width=.05, size=24, epochs=1, tune_epochs=1, bs=4, num_workers=0, seeds='0')

def test_tables_are_filled_once(three_actions, tmp_path, monkeypatch):
    def fill(): tables.main(str(three_actions), out=str(tmp_path), tables='2,training,1,3', encoders='r3d', **toy)
    fill()
    runs = pd.read_csv(tmp_path/'runs.csv', keep_default_na=False, na_values='')
    assert len(runs)==7+(6-1)+(4-1)+3 and not runs.duplicated().any()
    assert runs.value_counts('method').to_dict()=={'DP':5, 'DG-P':7, 'GP':4, 'random':2}
    measured = runs[['linear probe','neighbours vote','top1','top5']]
    assert measured.notna().all(None) and measured.stack().between(0, 100).all()
    assert (runs['rate accuracy'].notna()==runs.method.isin(['DP','DG-P'])).all() and (runs.loss_g.notna()==runs.method.isin(['GP','DG-P'])).all()
    assert runs[runs['fine-tuned'].notna()].value_counts('method').to_dict()=={'DP':5, 'DG-P':2, 'random':2, 'GP':1}
    curves = pd.read_csv(tmp_path/'curves.csv', keep_default_na=False, na_values='')
    assert curves.value_counts('stage').to_dict()=={'pretraining': 16, 'fine-tuning': 10}
    baselines = pd.read_csv(tmp_path/'baselines.csv', index_col='baseline').value
    assert 0<baselines['blur of 4x4x4']<baselines['mean colour of each clip']<baselines['one colour']<1 and 25<=baselines['rate accuracy from length']<=100
    before = (tmp_path/'runs.csv').read_bytes()
    monkeypatch.setattr(tables, 'measure', lambda *args, **kwargs: pytest.fail('measured again'))
    fill()
    assert (tmp_path/'runs.csv').read_bytes()==before

def test_runs_side_by_side_measure_the_same(three_actions, tmp_path):
    for o,jobs in (('one',1),('two',2)): tables.main(str(three_actions), out=str(tmp_path/o), tables='2', jobs=jobs, **toy|dict(tune_epochs=0))
    one,two = (pd.read_csv(tmp_path/o/'runs.csv').sort_values(['method','recon_rate','attn']).reset_index(drop=True) for o in ('one','two'))
    pd.testing.assert_frame_equal(one, two)

def test_a_stopped_run_goes_on(three_actions, tmp_path, monkeypatch, capsys):
    dgp,test = tables.runs_of('2')[2:3],tables.recognition_accuracy
    monkeypatch.setattr(tables, 'runs_of', lambda *args: dgp)
    def rows(out):
        tables.main(str(three_actions), out=str(tmp_path/out), tables='2', **toy)
        return (tmp_path/out/'runs.csv').read_text()
    whole = rows('whole')
    def stop(learn): raise KeyboardInterrupt
    monkeypatch.setattr(tables, 'recognition_accuracy', stop)
    with pytest.raises(KeyboardInterrupt): rows('stopped')
    assert len([*(tmp_path/'stopped/unfinished').rglob('last.pth')])==2
    monkeypatch.setattr(tables, 'recognition_accuracy', test)
    assert rows('stopped')==whole
    assert capsys.readouterr().out.count('resumes at epoch 1 of 1')==2 and not [*(tmp_path/'stopped/unfinished').iterdir()]

def test_other_settings_are_other_runs(three_actions, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'measure', lambda run, df, folder, seed, *args: (dict(top1=seed), None))
    for o in (dict(seeds='0'), dict(seeds='0'), dict(seeds='0', epochs=2), dict(seeds='0,1')): tables.main(str(three_actions), out=str(tmp_path), tables='2', **dict(size=24, bs=4, num_workers=0)|o)
    assert pd.read_csv(tmp_path/'runs.csv').value_counts(['epochs','seed']).to_dict()=={(30,0):7, (2,0):7, (30,1):7}

def test_unit_gradients(three_actions):
    dls = PRPDataLoaders.from_folder(three_actions, size=24, bs=4, num_workers=0)
    learn = prp_learner(dls, 'c3d', width=.05, cbs=tables.UnitGradients())
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert not learn.model.rate._forward_pre_hooks and not learn.model.recon._forward_pre_hooks
    x = torch.randn(2, 3, requires_grad=True)
    (1e-4*tables._UnitGradient.apply(x).square()).sum().backward()
    assert abs(x.grad.norm()-1)<1e-5
