"What a user does with a Learner"
import pytest,torch
from fastcore.test import test_eq
from prp_fastai.all import *

@pytest.fixture
def dls(video_folder): return PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0)

def slim(dls, **kwargs): return prp_learner(dls, kwargs.pop('arch', 'c3d'), width=.05, **kwargs)

@pytest.mark.parametrize('heads', [('rate',), ('recon',), ('rate','recon')])
def test_everything_an_ordinary_learner_does(dls, tmp_path, heads):
    learn = slim(dls, heads=heads, path=tmp_path)
    with learn.no_bar():
        learn.fit_one_cycle(2, 1e-2, cbs=SaveModelCallback(monitor='valid_loss'))
        learn.lr_find(num_it=5, show_plot=False)
        assert learn.validate()==learn.validate()
        learn.load('model')
    assert (tmp_path/'models/model.pth').exists()
    preds,targs = learn.get_preds(dl=dls.valid)
    preds = preds if isinstance(preds, tuple) else (preds,)
    n = len(dls.valid_ds)
    shapes = dict(rate=(n,4), recon=(n,3,32,32,32))
    assert [tuple(o.shape) for o in preds]==[shapes[h] for h in heads]
    assert len(targs)==3 and len(targs[0])==n
    assert 'Total params' in learn.summary()
    learn.show_results(); plt.close('all')
    learn.export('export.pkl')
    again = load_learner(tmp_path/'export.pkl')
    again_preds,_ = again.get_preds(dl=again.dls.test_dl(dls.valid_ds.items, bs=4, num_workers=0))
    again_preds = again_preds if isinstance(again_preds, tuple) else (again_preds,)
    for a,b in zip(preds, again_preds): torch.testing.assert_close(a, b)

def test_predict_names_the_rate(dls):
    decoded,_,_ = slim(dls).predict(dls.valid_ds.items[0])
    assert decoded[0] in dls.vocab and decoded[1].shape==(3,32,32,32)

def test_metrics_are_named_and_add_up(dls):
    learn = slim(dls)
    loss,acc,d,g = learn.validate()
    assert learn.metrics.attrgot('name')==['rate_accuracy','loss_d','loss_g']
    assert abs(loss-(.1*d+g))<1e-5 and 0<=acc<=1

def test_the_papers_optimiser_is_torchs_sgd(dls):
    "Some steps of `prp_sgd`, against torch's SGD with the classifier's last layer at ten times the rate"
    learn = slim(dls)
    learn.create_opt()
    twin = learn.model.__class__('c3d', width=.05); twin.load_state_dict(learn.model.state_dict())
    last = list(twin.rate[-1].parameters())
    rest = [p for p in twin.parameters() if not any(p is o for o in last)]
    sgd = torch.optim.SGD([dict(params=rest), dict(params=last, lr=.1)], lr=.01, momentum=.9, weight_decay=5e-4)
    x,*y = [o.as_subclass(Tensor) for o in dls.one_batch()]
    for _ in range(3):
        for m,opt in ((learn.model,learn.opt),(twin,sgd)):
            learn.loss_func(m(x), *y).backward(); opt.step(); opt.zero_grad()
    for a,b in zip(learn.model.parameters(), twin.parameters()): torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)

def test_a_few_clips_can_be_learned_by_heart(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0)
    learn = prp_learner(dls, 'r3d', width=.1)
    x,*y = [o.as_subclass(Tensor) for o in dls.one_batch()]
    learn.create_opt()
    losses = []
    for _ in range(60):
        loss = learn.loss_func(learn.model(x), *y); loss.backward(); learn.opt.step(); learn.opt.zero_grad(); losses.append(loss.item())
    assert losses[-1]<.35*losses[0]
    assert rate_accuracy(learn.model(x), *y)==1

def test_a_model_without_classifier_has_no_faster_group(dls):
    learn = slim(dls, heads=('recon',), opt_func=partial(prp_sgd, head_lr_mult=10.))
    learn.create_opt()
    assert [h['lr_mult'] for h in learn.opt.hypers]==[1.]

def test_schedules_and_groups(dls):
    learn = slim(dls)
    with learn.no_bar(): learn.fit(2, .01, cbs=plateau(patience=1))
    assert [h['lr_mult'] for h in learn.opt.hypers]==[1.,10.]
    with learn.no_bar(): learn.fit_one_cycle(1, slice(1e-3, 1e-2))

def test_callbacks_leave_nothing_behind(dls, tmp_path):
    learn = slim(dls)
    def state(): return learn.loss_func,[*learn.metrics],sorted(o.name for o in learn.cbs)
    before = state()
    with learn.no_bar(): learn.fit(1, cbs=[SaveBestEncoder(tmp_path/'e.safetensors'), plateau()])
    assert state()==before

@pytest.mark.parametrize('phase', ['training','validation'])
def test_non_finite_loss_names_step_and_video(dls, phase):
    learn = slim(dls)
    poisoned = (dls.train if phase=='training' else dls.valid).dataset.items[1]
    class Poison(Callback):
        order = StopAtNonFinite.order-1
        def after_pred(self):
            for i,o in enumerate(learn.stop_at_non_finite._items()):
                if o==poisoned: self.learn.pred[0][i] = torch.inf
    with learn.no_bar(), pytest.raises(NonFiniteLoss) as e: learn.fit(1, cbs=Poison())
    assert f'{phase} batch' in str(e.value) and str(poisoned) in str(e.value) and str(e.value).count('.mp4')==1
    assert all(torch.isfinite(p).all() for p in learn.model.parameters())

def test_gradients_reach_everything(dls):
    learn = slim(dls, arch='r2plus1d')
    x,*y = [o.as_subclass(Tensor) for o in dls.one_batch()]
    learn.loss_func(learn.model(x), *y).backward()
    assert all(p.grad is not None and p.grad.abs().sum()>0 for n,p in learn.model.named_parameters() if 'bias' not in n)

def test_encoder_files(dls, tmp_path):
    learn = slim(dls)
    fname = learn.save_encoder(tmp_path/'e.safetensors')
    x = torch.rand(1,3,16,32,32)
    assert torch.equal(load_encoder(fname)(x), learn.model.encoder.eval()(x))
    assert read_card(fname)['rates']==[1,2,4,8]
    with pytest.raises(ValueError, match='differs in'): load_encoder(fname, arch=c3d(.1))
    from safetensors.torch import save_file
    save_file({'a': torch.ones(1)}, tmp_path/'b.safetensors')
    with pytest.raises(ValueError, match='does not say'): load_encoder(tmp_path/'b.safetensors')

def test_pictures(dls, video_folder):
    learn,files = slim(dls),get_video_files(video_folder)
    dls.show_batch(); dls.show_batch(unique=True); dls.train_ds
    assert len(learn.plot_activations(files[:2]))==2
    assert len(plot_rates(files[0]).axes)==4
    still = torch.zeros(1,3,16,32,32)
    assert torch.isfinite(activation_maps(learn.model.encoder, still)).all()
    plt.close('all')

@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_a_gradient_that_is_not_finite_stops_before_the_step(dls, value):
    learn = prp_learner(dls, 'c3d', width=.02)
    weight = learn.model.recon.layers[2][0].weight
    before = {k: v.clone() for k,v in learn.model.named_parameters()}
    weight.register_hook(lambda g: g.index_fill(0, torch.tensor([0]), value))
    with learn.no_bar(), learn.no_logging(), pytest.raises(NonFiniteGradient, match=r'1 of \d+ gradients are not finite in epoch 0, training batch 0, the loss is 0\.\d+: recon\.layers\.2\.0\.weight'): learn.fit(1)
    for k,v in learn.model.named_parameters(): assert torch.equal(v, before[k]), k

@pytest.mark.parametrize('total,said', [(60., 'a minute'), (480., '8 minutes'), (9720., '2.7 hours')])
def test_the_duration_of_a_run_is_told_once(video_folder, monkeypatch, total, said):
    "The clock moves by two batches of a run of `total` seconds whenever it is asked"
    dls = PRPDataLoaders.from_folder(video_folder, size=32, bs=2, num_workers=0)
    per = total/len(dls.train)/4
    clock,told = iter(np.arange(9)*2*per),[]
    monkeypatch.setattr('prp_fastai.callback.time', type('clock', (), dict(perf_counter=lambda: next(clock))))
    with (learn := slim(dls)).no_bar(), learn.no_logging(): learn.fit(4, cbs=SayDuration(told.append))
    test_eq(told, [f'{per:.2g} seconds a batch of 2: about {said} for 4 epochs, without validation'])
