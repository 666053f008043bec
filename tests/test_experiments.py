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

toy = dict(width=.05, size=24, epochs=1, tune_epochs=1, bs=4, num_workers=0)

def test_tables_are_filled_once(three_actions, tmp_path, monkeypatch):
    def fill(): tables.main(str(three_actions), out=str(tmp_path), tables='2,1,3', encoders='r3d', **toy)
    fill()
    runs = pd.read_csv(tmp_path/'runs.csv')
    assert len(runs)==7+4+2 and not runs.duplicated().any()
    assert runs.value_counts('method').to_dict()=={'DP':5, 'GP':4, 'DG-P':2, 'random':2}
    measured = runs[['fine-tuned','linear probe','neighbours vote','top1','top5']]
    assert measured.notna().all(None) and measured.stack().between(0, 100).all()
    assert (runs['rates told'].notna()==runs.method.isin(['DP','DG-P'])).all()
    before = (tmp_path/'runs.csv').read_bytes()
    monkeypatch.setattr(tables, 'measure', lambda *args, **kwargs: pytest.fail('measured again'))
    fill()
    assert (tmp_path/'runs.csv').read_bytes()==before

def test_a_stopped_run_goes_on(three_actions, tmp_path, monkeypatch, capsys):
    dgp,test = tables.runs_of(2, 8, [])[1:2],tables.recognition_accuracy
    monkeypatch.setattr(tables, 'runs_of', lambda *args: dgp)
    def rows(out):
        tables.main(str(three_actions), out=str(tmp_path/out), **toy)
        return (tmp_path/out/'runs.csv').read_text()
    whole = rows('whole')
    def stop(learn): raise KeyboardInterrupt
    monkeypatch.setattr(tables, 'recognition_accuracy', stop)
    with pytest.raises(KeyboardInterrupt): rows('stopped')
    assert len([*(tmp_path/'stopped/unfinished').rglob('last.pth')])==2
    monkeypatch.setattr(tables, 'recognition_accuracy', test)
    assert rows('stopped')==whole
    assert capsys.readouterr().out.count('goes on at epoch 1 of 1')==2 and not [*(tmp_path/'stopped/unfinished').iterdir()]

def test_other_settings_are_other_runs(three_actions, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, 'measure', lambda run, df, folder, seed, **how: folder.mkdir(parents=True) or {'top1': seed})
    for o in (dict(), dict(), dict(epochs=2), dict(seeds='0,1')): tables.main(str(three_actions), out=str(tmp_path), tables='2', **o)
    assert pd.read_csv(tmp_path/'runs.csv').value_counts(['epochs','seed']).to_dict()=={(16,0):7, (2,0):7, (16,1):7}
