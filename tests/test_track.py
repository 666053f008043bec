"Runs that are logged: the same numbers as without, and a log without gaps where they go on"
import signal,sys,time
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter
from prp_fastai.all import *
from conftest import killed
from test_resume import Noise,StopAt,kept,learner,same

def logged(folder):
    "{name: [(step, value)]}, of figures their bytes"
    log = EventAccumulator(str(folder), dict(images=0, scalars=0)).Reload()
    return {**{k: [(o.step, o.value) for o in log.Scalars(k)] for k in log.Tags()['scalars']},
            **{k: [(o.step, o.encoded_image_string) for o in log.Images(k)] for k in log.Tags()['images']}}

def fit(learn, cbs, n=2):
    learn.recorder.train_metrics = True
    with learn.no_bar(), learn.no_logging(): learn.fit(n, .1, cbs=[Noise(), *cbs])
    return learn

class Die(StopAt):
    "No last word of `Resume`"
    def after_pred(self):
        if (self.epoch,'train' if self.training else 'valid',self.iter)==self.at: raise KeyboardInterrupt

class Kill(StopAt):
    "No last word of anyone"
    def after_pred(self):
        if (self.epoch,'train',self.iter)==self.at: os.kill(os.getpid(), signal.SIGKILL)

def run(video_folder, folder, *cbs, **kwargs): return fit(learner(video_folder), [*tracker('tensorboard', folder, **kwargs), Resume(folder), *cbs])

@pytest.fixture(scope='module')
def whole(video_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    return folder,run(video_folder, folder, settings=dict(width=.02))

@pytest.fixture
def offline(monkeypatch):
    "W&B without a network"
    wandb = pytest.importorskip('wandb')
    monkeypatch.setenv('WANDB_MODE', 'offline')
    monkeypatch.setenv('WANDB_SILENT', 'true')
    yield wandb
    wandb.finish()

def authors(video_folder, heads): # who draw anew in each validation
    set_seed(1)
    return prp_learner(PRPDataLoaders.from_folder(video_folder, size=24, bs=2, num_workers=0, preset='authors'), 'c3d', heads, width=.02)

def unlogged(folder):
    state = kept(folder)
    state['cbs'] = {k: v for k,v in state['cbs'].items() if k not in ('tensor_board','wandb','log_figures')}
    torch.save(state, folder/'last.pth')

@pytest.mark.parametrize('heads', [('rate',), ('recon',)])
def test_figures_change_nothing(video_folder, tmp_path, heads):
    a,b = tmp_path/'a',tmp_path/'b'
    fit(authors(video_folder, heads), [Resume(a)])
    seen = []
    def log(name, fig, step): seen.append((name, step, fig.axes[0].images[0].get_array()))
    fit(authors(video_folder, heads), [Resume(b), LogFigures(log, n=3)])
    unlogged(b)
    assert same(a, b) and [o[:2] for o in seen]==[(k,step) for step in (5,10) for k in ('results','activations')]
    for (*_,x),(*_,y) in zip(seen[:2], seen[2:]): assert np.array_equal(x, y), 'other clips'

@pytest.fixture(scope='module')
def alone(video_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('alone')
    fit(authors(video_folder, ('rate','recon')), [Resume(folder)])
    return folder

def check_nothing_changes(kind, video_folder, folder, alone):
    fit(authors(video_folder, ('rate','recon')), [Resume(folder), *tracker(kind, folder)])
    unlogged(folder)
    assert same(folder, alone)

def test_tensorboard_changes_nothing(video_folder, tmp_path, alone): check_nothing_changes('tensorboard', video_folder, tmp_path, alone)
def test_wandb_changes_nothing(video_folder, tmp_path, alone, offline): check_nothing_changes('wandb', video_folder, tmp_path, alone)

def test_mode_of_each_module_is_put_back(video_folder):
    learn,modes = learner(video_folder),[]
    class NoValidation(Callback):
        order = -20
        def before_validate(self): raise CancelValidException
        def after_epoch(self): modes.append([m.training for m in self.model.modules()])
    learn.model.encoder[0].requires_grad_(False)
    class Frozen(Callback):
        def before_batch(self): self.model.encoder[0].eval()
    fit(learn, [NoValidation(), Frozen(), LogFigures(lambda *args: None)], 1)
    after = [m.training for m in learn.model.modules()]
    assert modes==[after] and 0<sum(after)<len(after)

def test_log_has_every_number_once(whole):
    folder,learn = whole
    log = logged(folder)
    n = len(learn.dls.train)
    assert [o for o,_ in log['train_loss']]==list(range(1, 2*n+1))
    for i,k in enumerate(learn.recorder.metric_names[2:-1], 1):
        assert [o for o,_ in log[k]]==[n, 2*n] and [v for _,v in log[k]]==pytest.approx([o[i] for o in learn.recorder.values])
    assert [o for o,_ in log['lr_0']]==list(range(1, 2*n+1)) and [o for o,_ in log['results']]==[o for o,_ in log['activations']]==[n, 2*n]
    assert log['results'][0][1]!=log['results'][1][1]

@pytest.mark.parametrize('stop', [StopAt((1,'train',3)), StopAt((1,'valid',0)), Die((1,'train',2)), Die((0,'train',2)), Die((1,'valid',0))])
def test_log_goes_on(video_folder, tmp_path, whole, stop):
    with pytest.raises((SystemExit,KeyboardInterrupt)): run(video_folder, tmp_path, stop)
    run(video_folder, tmp_path)
    a,b = logged(tmp_path),logged(whole[0])
    assert a==b and len(b['train_loss'])==10

@pytest.mark.parametrize('at', [(1,'train',3), (1,'train',0)])
def test_log_of_a_killed_run_goes_on(video_folder, tmp_path, whole, at):
    def f():
        torch.set_num_threads(1)
        write = RecordWriter.write
        RecordWriter.write = lambda self, data: (time.sleep(.02+len(data)/2e5), write(self, data)) # the disk is slow
        fit(learner(video_folder), [*tracker('tensorboard', tmp_path), Resume(tmp_path, every=1), Kill(at)])
    killed(f, 60)
    assert (kept(tmp_path)['epoch'],kept(tmp_path)['iter'])==(at[0],at[2])
    run(video_folder, tmp_path)
    assert logged(tmp_path)==logged(whole[0])

def test_a_complete_run_and_a_search_of_the_learning_rate_log_nothing(video_folder, tmp_path, whole):
    before = logged(whole[0])
    run(video_folder, whole[0])
    assert logged(whole[0])==before
    learn = learner(video_folder, path=tmp_path)
    learn.add_cbs(tracker('tensorboard', tmp_path/'log'))
    with learn.no_bar(): learn.lr_find(num_it=8, show_plot=False)
    assert not list((tmp_path/'log').iterdir())

def test_every_few_epochs(video_folder, tmp_path):
    fit(learner(video_folder), tracker('tensorboard', tmp_path, every=2), 3)
    assert [o for o,_ in logged(tmp_path)['results']]==[10]

def test_wandb_goes_on_in_the_same_run(video_folder, tmp_path, offline):
    def run(*cbs, resume): return fit(learner(video_folder), [*tracker('wandb', tmp_path, dict(width=.02), resume), Resume(tmp_path), *cbs])
    with pytest.raises(SystemExit): run(StopAt((1,'train',1)), resume=False)
    first,folder = offline.run.id,Path(offline.run.dir)
    assert offline.run.step==6 and offline.run.config['width']==.02 and len(list(folder.glob('media/images/*_4_*.png')))==2
    learn = run(resume=True)
    summary = offline.run.summary
    assert offline.run.id==first and (summary['_step'],summary['epoch'])==(9, 2) and len(list(Path(offline.run.dir).glob('media/images/*_9_*.png')))==2
    assert [summary[k] for k in learn.recorder.metric_names[2:-1]]==pytest.approx(list(learn.recorder.values[-1][1:]))
    tracker('wandb', tmp_path)
    assert offline.run.id!=first

def test_missing_package_and_unknown_kind(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="'tensorboard' or 'wandb', got 'csv'"): tracker('csv', tmp_path)
    for kind in ('tensorboard','wandb'):
        monkeypatch.setitem(sys.modules, f'fastai.callback.{kind}', None)
        monkeypatch.setitem(sys.modules, kind, None)
        with pytest.raises(ImportError, match=rf'^{kind} is another package: pip install "prp_fastai\[track\]"$'): tracker(kind, tmp_path)

def test_the_first_process_logs(tmp_path, monkeypatch):
    monkeypatch.setenv('RANK', '1')
    assert tracker('tensorboard', tmp_path/'log')==[] and not (tmp_path/'log').exists()
