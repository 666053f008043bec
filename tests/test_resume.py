"Runs that are stopped, killed, and gone on with"
import random,signal,time
import pandas as pd,pytest,torch
from prp_fastai.all import *
from conftest import killed

def learner(video_folder, workers=0, bs=2, **kwargs):
    set_seed(1)
    return prp_learner(PRPDataLoaders.from_folder(video_folder, size=24, bs=bs, num_workers=workers), 'c3d', width=.02, **kwargs)

class Noise(Callback):
    "Random numbers of all kinds, before and after each batch"
    def before_batch(self): self.learn.xb = (self.x + .01*random.random() + .01*np.random.rand() + .01*torch.rand(()),)
    def after_batch(self): random.random(),np.random.rand(),torch.rand(())

class StopAt(Callback):
    "SIGTERM in the middle of a batch"
    def __init__(self, at): self.at = at
    def after_pred(self):
        if (self.epoch,'train' if self.training else 'valid',self.iter)==self.at: os.kill(os.getpid(), signal.SIGTERM)

def cbs(folder, *others): return [Noise(), SaveBestEncoder(folder/'e.safetensors'), plateau(patience=1), Resume(folder), *others]

def fit(learn, folder, *others):
    learn.recorder.train_metrics = True
    folder.mkdir(exist_ok=True)
    with learn.no_bar(), learn.no_logging(): learn.fit(3, .3, cbs=cbs(folder, *others))
    return learn

def kept(folder): return torch.load(folder/'last.pth', weights_only=True)

def same(a, b):
    "Whether two runs were kept as the same, to the last bit"
    def flat(o): return [x for k in o for x in flat(o[k])] if isinstance(o, dict) else [x for v in o for x in flat(v)] if isinstance(o, (list,tuple)) else [o]
    a,b = kept(a),kept(b)
    for o in (a,b): del o['history'],o['cbs']['recorder']['log'] # which have the time of day
    pairs = list(zip(flat(a), flat(b), strict=True))
    return len(pairs)>100 and all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x==y for x,y in pairs)

def table(folder): return pd.read_csv(folder/'history.csv').drop(columns='time')

@pytest.fixture(scope='module')
def whole(video_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp('whole')
    fit(learner(video_folder), folder)
    return folder

@pytest.mark.parametrize('at', [(0,'train',0), (0,'train',3), (0,'train',4), (1,'train',2), (1,'valid',0), (2,'valid',0)])
def test_sigterm_anywhere(video_folder, whole, tmp_path, at):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as e: fit(learner(video_folder), tmp_path, StopAt(at))
    assert e.value.code==143 and signal.getsignal(signal.SIGTERM)==handler
    n = len(learner(video_folder).dls.train)
    assert (kept(tmp_path)['epoch'],kept(tmp_path)['iter'])==((at[0], at[2]+1) if at[1]=='train' else (at[0], n) if at[2]==0 and n else None)
    fit(learner(video_folder), tmp_path)
    assert same(tmp_path, whole) and table(tmp_path).equals(table(whole))
    assert all(torch.equal(a, b) for a,b in zip(load_encoder(tmp_path/'e.safetensors').parameters(), load_encoder(whole/'e.safetensors').parameters()))

def test_small_goes_on_to_the_same_bits(video_folder, tmp_path):
    def run(o, *others): return fit(learner(video_folder, preset='small'), tmp_path/o, *others)
    run('whole')
    with pytest.raises(SystemExit): run('stopped', StopAt((1,'train',2)))
    run('stopped')
    assert same(tmp_path/'stopped', tmp_path/'whole') and table(tmp_path/'stopped').equals(table(tmp_path/'whole'))

def test_number_of_workers_may_change(video_folder, whole, tmp_path):
    with pytest.raises(SystemExit): fit(learner(video_folder, workers=2), tmp_path, StopAt((1,'train',1)))
    with pytest.raises(SystemExit): fit(learner(video_folder, workers=1), tmp_path, StopAt((1,'train',3)))
    fit(learner(video_folder), tmp_path)
    assert same(tmp_path, whole)

def test_one_cycle_and_another_optimiser(video_folder, tmp_path):
    def run(folder, *cbs):
        learn = learner(video_folder, opt_func=Adam)
        learn.fit_one_cycle(2, .01, cbs=[Resume(folder), *cbs])
        return learn
    a = run(tmp_path/'a')
    with pytest.raises(SystemExit): run(tmp_path/'b', StopAt((1,'train',1)))
    b = run(tmp_path/'b')
    assert same(tmp_path/'a', tmp_path/'b') and a.recorder.hps==b.recorder.hps and [float(o) for o in a.recorder.losses]==[float(o) for o in b.recorder.losses]

def test_killed_ten_times(video_folder, tmp_path):
    def train(folder):
        def f():
            torch.set_num_threads(1)
            learn = learner(video_folder)
            folder.mkdir(exist_ok=True)
            with learn.no_bar(), learn.no_logging(): learn.fit(4, .1, cbs=[Noise(), Resume(folder, every=1), plateau(patience=1)])
        return f
    took,rng,kills,broken = killed(train(tmp_path/'whole'), 300),random.Random(0),0,0
    while kills<10:
        if (after:=rng.uniform(.2, .9)*took)==(spent:=killed(train(tmp_path/'a'), after)): kills += 1
        else:
            took = min(took, spent)
            assert same(tmp_path/'a', tmp_path/'whole')
            shutil.rmtree(tmp_path/'a')
            continue
        broken += (tmp_path/'a/last.pth').exists() and kept(tmp_path/'a')['iter']>0
    killed(train(tmp_path/'a'), 300)
    assert broken>2, 'kills hit no epoch in its middle'
    assert same(tmp_path/'a', tmp_path/'whole') and table(tmp_path/'a').equals(table(tmp_path/'whole'))

def test_a_complete_run_is_only_loaded(video_folder, whole, tmp_path):
    shutil.copytree(whole, tmp_path/'run')
    learn = fit(learner(video_folder), tmp_path/'run')
    assert all(torch.equal(a, b) for a,b in zip(learn.model.state_dict().values(), kept(whole)['model'].values())) and same(tmp_path/'run', whole)
    assert learn.final_record==table(whole).values[-1,1:].tolist()
    assert not list((tmp_path/'run').glob('*.tmp'))

def test_history_survives_a_kill_while_it_is_written(video_folder, whole, tmp_path, monkeypatch):
    shutil.copytree(whole, tmp_path/'run')
    before = (tmp_path/'run/history.csv').read_text()
    def half(self, f, **kwargs): Path(f).write_text(''); raise KeyboardInterrupt
    with monkeypatch.context() as m:
        m.setattr(pd.DataFrame, 'to_csv', half)
        with pytest.raises(KeyboardInterrupt): fit(learner(video_folder), tmp_path/'run')
    assert (tmp_path/'run/history.csv').read_text()==before
    (tmp_path/'run/history.csv').write_text('')
    fit(learner(video_folder), tmp_path/'run')
    assert (tmp_path/'run/history.csv').read_text()==before

def test_a_run_of_other_data_is_refused(video_folder, whole):
    with pytest.raises(Exception, match='batches an epoch'): fit(learner(video_folder, bs=4), whole)

@pytest.mark.parametrize('at', [(0,'train',0), (1,'train',1), (1,'valid',0)])
def test_gradients_that_wait_for_a_step_are_kept(video_folder, tmp_path, at):
    "Batches of 2 and a step for 6 clips: one step takes gradients of two epochs"
    fit(learner(video_folder), tmp_path/'whole', GradientAccumulation(6))
    with pytest.raises(SystemExit): fit(learner(video_folder), tmp_path/'broken', GradientAccumulation(6), StopAt(at))
    assert any(o is not None for o in kept(tmp_path/'broken')['grads'])
    fit(learner(video_folder), tmp_path/'broken', GradientAccumulation(6))
    assert same(tmp_path/'broken', tmp_path/'whole')

def test_a_fit_that_broke_off_leaves_nothing_behind(video_folder, tmp_path):
    "Neither where to begin, nor a handler of signals, nor half a sum of gradients"
    class Break(Callback):
        def after_backward(self): raise ZeroDivisionError('a step that fails')
    told,old = [],signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    try:
        with pytest.raises(SystemExit): fit(learner(video_folder), tmp_path/'a', StopAt((1,'train',1)))
        learn = learner(video_folder)
        with pytest.raises(ZeroDivisionError): fit(learn, tmp_path/'a', Break())
        assert learn.first_epoch==0 and learn.dls.train.first_batch==0
        os.kill(os.getpid(), signal.SIGTERM)
        assert told==[1]
    finally: signal.signal(signal.SIGTERM, old)
    fit(learn, tmp_path/'a')
    fit(learner(video_folder), tmp_path/'whole')
    assert same(tmp_path/'a', tmp_path/'whole')

def test_what_is_no_fit_leaves_the_run_alone(video_folder, tmp_path):
    learn = learner(video_folder, cbs=Resume(tmp_path, every=1))
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, .1)
        before,learn.model.rate[-1].bias.data[0] = (tmp_path/'last.pth').read_bytes(),7.
        learn.lr_find(num_it=6, show_plot=False), learn.validate(), learn.get_preds()
    assert learn.model.rate[-1].bias[0]==7 and (tmp_path/'last.pth').read_bytes()==before

def test_both_parts_of_fine_tuning_need_a_folder_each(video_folder, tmp_path):
    learn = learner(video_folder)
    with learn.no_bar(), learn.no_logging(), pytest.raises(ValueError, match='other layers frozen'): learn.fine_tune(2, cbs=Resume(tmp_path))

def test_a_run_follows_one_with_scaled_losses(video_folder, tmp_path):
    "After a fit in half precision the learner has a scaler that is None"
    learn = learner(video_folder)
    learn.scaler = None
    with learn.no_bar(), learn.no_logging(): learn.fit(1, cbs=Resume(tmp_path))
    assert kept(tmp_path)['scaler'] is None

@pytest.mark.parametrize('stops', [SaveModelCallback, partial(EarlyStoppingCallback, min_delta=9.)])
def test_trackers_remember(video_folder, tmp_path, stops, monkeypatch):
    "A run that was stopped ends with the weights that one ends with that was not"
    def run(folder, *cbs):
        learn = learner(video_folder, path=folder)
        with learn.no_bar(), learn.no_logging(): learn.fit(3, .3, cbs=[Resume(folder), stops(), *cbs])
        return learn.model.state_dict()
    whole = run(tmp_path/'a')
    with pytest.raises(SystemExit): run(tmp_path/'b', StopAt((1,'train',1)))
    again = run(tmp_path/'b')
    for k in whole: assert torch.equal(whole[k], again[k]), k

def test_other_dataloaders_go_on_from_the_end_of_an_epoch(tmp_path):
    def run(folder, *cbs):
        set_seed(2)
        data = [(torch.randn(3),torch.randn(1)) for _ in range(12)]
        learn = Learner(DataLoaders(*(DataLoader(data, bs=4, shuffle=o) for o in (True,False))), torch.nn.Linear(3,1), loss_func=MSELossFlat())
        with learn.no_bar(), learn.no_logging(): learn.fit(3, .1, cbs=[Resume(folder, every=1), *cbs])
    run(tmp_path/'whole')
    with pytest.raises(SystemExit): run(tmp_path/'broken', StopAt((1,'train',1)))
    assert (kept(tmp_path/'broken')['epoch'],kept(tmp_path/'broken')['iter'])==(1,0)
    run(tmp_path/'broken')
    assert all(torch.equal(kept(tmp_path/'whole')['model'][k], v) for k,v in kept(tmp_path/'broken')['model'].items())
