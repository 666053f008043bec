"Figures: shapes, numbers they state, and what they are drawn from"
import json,numpy as np,pytest,re,torch
from PIL import Image
from prp_fastai.all import *
from prp_fastai import interpret
from prp_fastai.cli.figures import write_report
from conftest import pattern

@pytest.fixture(scope='module')
def learn(video_folder):
    "A small DG-P learner of twelve videos, a few steps old"
    set_seed(0)
    dls = PRPDataLoaders.from_folder(video_folder, size=28, bs=4, num_workers=0, valid_pct=.5)
    learn = prp_learner(dls, 'c3d', width=.05, final='linear')
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

@pytest.fixture(scope='module')
def interp(learn): return PRPInterpretation.from_learner(learn)

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')

class Fixed(nn.Module):
    "An encoder that gives `maps` whatever it is shown"
    def __init__(self, maps): super().__init__(); self.maps = maps
    def forward(self, x): return self.maps

def moving_square(n=2, t=16, size=32):
    "Clips of a bright square that moves over a dark ground"
    x = torch.zeros(n, 3, t, size, size)
    for i in range(t): x[:,:,i,8:16,i:i+8] = 1
    return x

def moved(x):
    "Pixels of `x` that differ from the next frame, the last frame those of the one before, (n,1,t,h,w)"
    d = (x[:,:,1:]!=x[:,:,:-1]).any(1, keepdim=True)
    return torch.cat([d, d[:,:,-1:]], 2).float()

def test_motion_share_of_known_maps():
    x = moving_square()
    on,top = moved(x),moved(x).mean().item()
    assert .005<top<.1
    assert motion_share(Fixed(on), x, top).tolist()==pytest.approx([1,1])
    assert motion_share(Fixed(1-on), x, top).tolist()==pytest.approx([0,0], abs=1e-6)
    for k in (.1,.2,.5): assert motion_share(Fixed(torch.ones(2,4,2,3,3)), x, k).tolist()==pytest.approx([k,k], abs=1e-3)
    assert motion_share(Fixed(on+1), x, top).tolist()==pytest.approx([(4*top)/(1+3*top)]*2, rel=1e-4)

def test_motion_share_without_motion_or_activation():
    x = moving_square()
    x[1] = .5
    assert motion_share(Fixed(torch.ones(2,1,2,3,3)), x).isnan().tolist()==[False,True]
    assert motion_share(Fixed(torch.zeros(2,1,2,3,3)), x).isnan().all()

def test_motion_share_over_the_motion_of_other_clips():
    x = moving_square()
    on,top = moved(x),moved(x).mean().item()
    assert motion_share(Fixed(on), x, top, moving=x).tolist()==pytest.approx([1,1])
    assert motion_share(Fixed(on), x, top, moving=x.flip(3)).tolist()==pytest.approx([0,0])

def test_activation_maps_are_the_sum_of_squares():
    m = torch.randn(2,5,2,4,4)
    x = torch.rand(2,3,8,16,16)
    plain = torch.stack([sum(m[i,c]**2 for c in range(5)) for i in range(2)])[:,None]
    plain = F.interpolate(plain, size=(8,16,16), mode='trilinear', align_corners=False)
    torch.testing.assert_close(activation_energy(Fixed(m), x), plain)
    maps = activation_maps(Fixed(m), x)
    assert maps.shape==(2,8,16,16) and [(o.min().item(),o.max().item()) for o in maps]==[(0,1)]*2

def test_a_layer_is_seen_before_others_change_it():
    class Net(nn.Module):
        def __init__(self): super().__init__(); self.a,self.b = nn.Conv3d(3,4,1),nn.ReLU(inplace=True)
        def forward(self, x): return self.b(self.a(x))
    net,x = Net(),torch.rand(1,3,4,8,8)
    torch.testing.assert_close(activation_energy(net, x, layer='a'), net.a(x).square().sum(1, keepdim=True))
    assert not torch.equal(activation_energy(net, x, layer='a'), activation_energy(net, x))

def test_modes_are_left_as_they_were(learn):
    x = torch.rand(1,3,16,28,28)
    for mode in (True,False):
        learn.model.train(mode)
        before = {k: v.clone() for k,v in learn.model.state_dict().items()}
        activation_maps(learn.model.encoder, x); grad_cam(learn.model, x); motion_share(learn.model.encoder, x); stage_shapes(learn.model, 16, 28)
        assert learn.model.encoder.training==learn.model.rate.training==mode
        assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in before.items())
        assert all(p.device.type!='meta' for p in learn.model.parameters())

def test_grad_cam_against_its_formula(learn):
    model,x = learn.model.eval(),torch.rand(2,3,16,28,28)
    for k in range(4):
        A = model.encoder(x).detach().requires_grad_()
        model.rate(A)[:,k].sum().backward()
        w = A.grad.mean((2,3,4))
        cam = torch.einsum('nc,ncthw->nthw', w, A).clamp(min=0)[:,None].detach()
        cam = F.interpolate(cam, size=(16,28,28), mode='trilinear', align_corners=False)[:,0]
        torch.testing.assert_close(grad_cam(model, x, k), cam/cam.amax((1,2,3), keepdim=True).clamp(min=1e-12), rtol=1e-3, atol=1e-4)

def test_grad_cam_without_head_convolutions_finds_the_channel():
    model = PRPModel('c3d', width=.05, head_convs=False).eval()
    last = model.rate[-1]
    with torch.no_grad():
        last.weight.zero_(); last.weight[2,1] = 1; last.weight[3,1] = -1
        x = torch.rand(1,3,16,28,28)
        one = F.interpolate(model.encoder(x)[:,1:2], size=x.shape[2:], mode='trilinear', align_corners=False)[:,0]
    torch.testing.assert_close(grad_cam(model, x, 2), one/one.amax().clamp(min=1e-12))
    assert grad_cam(model, x, 3).max()==0

@pytest.mark.parametrize('heads,size', [(('rate',),32), (('recon',),32), (('rate','recon'),32), (('rate','recon'),28)])
def test_architecture_is_the_module(heads, size):
    model = PRPModel('r2plus1d', width=.1, heads=heads)
    df = stage_shapes(model, 8, size)
    assert df.params.sum()==sum(p.numel() for p in model.parameters())
    assert set(df.part)=={'encoder',*heads}
    got = [o.shape[1:] for o in tuplify(model.eval()(torch.rand(1,3,8,size,size)))]
    assert [tuple(df[df.part==o]['shape'].iloc[-1]) for o in heads]==[tuple(o) for o in got]
    assert len(plot_architecture(model, 8, size).axes)==1

@pytest.mark.parametrize('name', ['c3d','r3d','r2plus1d','r3d_18','mc3_18','r2plus1d_18'])
def test_blocks_of_every_encoder(name):
    net = create_encoder(name)
    ops = block_ops(net, None, 16, 56)
    want = stage_shapes(net, 16, 56)['shape'].iloc[-1]
    assert ops[-1].shape==tuple(want) and all(i<j for j,o in enumerate(ops) for i in o.inputs)
    assert any(len(o.inputs)==2 for o in ops)==(name!='c3d')

def test_stages_of_a_wrapped_encoder():
    net = c3d(.05)
    assert list(stages(nn.Sequential(net)))==[f'0.{o}' for o in stages(net)]
    assert stage_shapes(nn.Sequential(net), 16, 28)['shape'].tolist()==stage_shapes(net, 16, 28)['shape'].tolist()
    assert block_ops(nn.Sequential(net), '0.conv3', 16, 28)[-1].shape==(12,8,7,7)

def test_own_encoder_is_drawn_and_what_cannot_be_traced_is_named():
    class Own(nn.Module):
        def __init__(self): super().__init__(); self.stem,self.body = nn.Conv3d(3,6,3,2,1),nn.Conv3d(6,8,3,2,1)
        def forward(self, x): return self.body(self.stem(x))
    plot_architecture(Own(), 8, 32)
    class Branches(nn.Module):
        def __init__(self): super().__init__(); self.c = nn.Conv3d(3,4,1)
        def forward(self, x): return self.c(x) if x.shape[2]>4 else self.c(-x)
    with pytest.raises(ValueError, match="stage '1' cannot be traced"): block_ops(nn.Sequential(nn.Conv3d(3,3,1), Branches()), clip_len=8, size=16)

def test_interpretation_is_what_validation_says(learn, interp):
    loss,acc,loss_d,loss_g = learn.validate()
    t = interp.table
    assert t.loss.mean()==pytest.approx(loss, rel=1e-4) and interp.accuracy==pytest.approx(acc)
    assert (t.loss_d.mean(),t.loss_g.mean())==pytest.approx((loss_d,loss_g), rel=1e-4)
    assert t.loss.tolist()==pytest.approx((.1*t.loss_d+t.loss_g).tolist(), rel=1e-5)

def test_clips_that_are_shown_are_those_that_were_counted(learn, interp):
    idxs = [4,1,3]
    x,preds,(rate,G,M),decoded,losses = interp[idxs]
    assert rate.tolist()==interp.true[idxs].tolist()
    torch.testing.assert_close(preds[0], interp.probs[idxs], rtol=1e-4, atol=1e-5)
    again = m_mse(learn.model.eval()(x.as_subclass(Tensor))[1], G.as_subclass(Tensor), M.as_subclass(Tensor))
    assert again.tolist()==pytest.approx(interp.table.loss_g[idxs].tolist(), rel=1e-4)

def test_also_where_validation_draws_anew(learn):
    rated = item_tfm(learn.dls, PlaybackRate)
    rated.redraw = True
    try:
        a,b = (PRPInterpretation.from_learner(learn) for _ in range(2))
        assert torch.equal(a.losses, b.losses) and a[2][2][0].item()==a.true[2] and rated.redraw
    finally: rated.redraw = False

def test_nothing_large_is_kept(interp):
    held = [v for v in vars(interp).values() if isinstance(v, Tensor)]
    assert held and max(o.numel() for o in held)<=4*len(interp.losses)

def test_other_videos_and_bad_ones(learn, video_folder, tmp_path):
    files = get_video_files(video_folder)[:3]
    assert PRPInterpretation.from_learner(learn, files).table.path.tolist()==files.map(str)
    (tmp_path/'broken.mp4').write_bytes(b'no video')
    with pytest.raises(VideoError, match='broken.mp4'): PRPInterpretation.from_learner(learn, [*files, tmp_path/'broken.mp4'])

def test_confusion_matrix_counts(interp):
    interp = copy(interp)
    interp.true,interp.probs = tensor([0,0,1,3]),torch.eye(4)[[0,1,1,0]]
    ax = interp.plot_confusion_matrix().axes[0]
    assert ax.get_title()==f'50% of 4 rates predicted, {interp.chance:.0%} from video length alone'
    assert [float(o.get_text()) for o in ax.texts]==[.5,.5,0,0, 0,1,0,0, 0,0,0,0, 1,0,0,0]

def test_top_losses_are_the_largest(interp):
    titles = [ax.get_title() for ax in interp.plot_top_losses(2).axes]
    shown = [float(re.search(r'loss ([\d.]+)', o)[1]) for o in titles if 'loss' in o]
    assert shown==pytest.approx(interp.table.loss.nlargest(2).tolist(), abs=6e-4)

def test_figures_of_each_kind_of_model(video_folder, learn):
    for heads in (('rate',),('recon',)):
        other = prp_learner(learn.dls, 'c3d', heads, width=.05)
        interp = PRPInterpretation.from_learner(other)
        interp.plot_top_losses(1); interp.plot_activations(0)
        with pytest.raises(ValueError, match='no decoder' if heads==('rate',) else 'no rate head'):
            interp.plot_reconstructions([0]) if heads==('rate',) else interp.plot_confusion_matrix()

def test_psnr_in_titles(interp):
    x,_,(_,G,_),decoded,_ = interp[[1]]
    want = 10*np.log10(1/np.mean((decoded[1][0].numpy()-G[0].as_subclass(Tensor).numpy())**2))
    assert f'reconstruction, {want:.1f} dB' in [o.get_title() for o in interp.plot_reconstructions([1]).axes]

def test_animations(interp, tmp_path):
    gif = interp.animate_reconstruction(0, tmp_path/'a.gif', width=3)
    with Image.open(gif) as o: assert o.n_frames==32 and o.info['duration']==120
    mp4 = interp.animate_reconstruction(0, tmp_path/'a.mp4', width=3)
    assert probe(mp4).n_frames==32 and probe(mp4).fps==8

def test_a_shorter_video_lasts_as_long(tmp_path):
    short = TensorVideo(torch.linspace(0, 1, 2)[None,:,None,None].expand(3,2,8,8).clone())
    long = TensorVideo(torch.zeros(3,6,8,8))
    v = read_frames(animate([short,long], ['a','b'], tmp_path/'a.mp4', width=2), range(6)).float()
    left = v[:,:,60:90,20:60].mean((0,2,3))
    assert (left[:3]<60).all() and (left[3:]>200).all()

@pytest.mark.parametrize('s', [1,2,8])
def test_motion_attention_has_a_block_a_rate(video_folder, s):
    fig = plot_motion_attention(get_video_files(video_folder)[0], s, size=28)
    assert [len(o.axes) for o in fig.subfigs]==[8,8,s,s,8]

def test_activations_of_several_models(learn):
    clip = torch.rand(3,16,28,28)
    fig = plot_activations(dict(DP=learn.model.encoder, GP=c3d(.05)), clip, n=4)
    assert [ax.get_ylabel() for ax in fig.axes[::4]]==['clip','DP','GP']

def test_explore(video_folder, learn, monkeypatch):
    pytest.importorskip('ipywidgets')
    monkeypatch.setattr(plt, 'show', lambda: None)
    w = explore(get_video_files(video_folder)[0], learn.model.encoder, size=28)
    rate,frame,layer = w.children[:3]
    assert rate.options==(1,2,4,8) and frame.max==15 and layer.value=='conv5' and 'conv1' in layer.options
    w.f(rate=4, frame=3, layer='conv2')
    assert [ax.get_title() for ax in plt.gcf().axes]==['rate 4, frame 3','conv2']

def test_explore_without_widgets(video_folder, learn, monkeypatch):
    monkeypatch.setitem(sys.modules, 'ipywidgets', None)
    with pytest.raises(ImportError, match='pip install ipywidgets'): explore(get_video_files(video_folder)[0], learn.model.encoder)

def test_report_is_one_file_and_escapes(tmp_path):
    fig,ax = plt.subplots(figsize=(1,1))
    fig.savefig(tmp_path/'a.png')
    text = write_report(tmp_path/'r.html', 'a<b', [('1<2','c & d',tmp_path/'a.png'), ('t','u',pd.DataFrame(dict(x=[1])))], dict(k='<script>')).read_text()
    assert 'a&lt;b' in text and '1&lt;2' in text and 'c &amp; d' in text and '<script>' not in text
    assert text.count('<img')==text.count('src="data:image/png;base64,')==1 and 'href=' not in text and 'http' not in text

def test_prp_figures_of_a_file_and_of_a_run(video_folder, tmp_path):
    prp_pretrain(str(video_folder), str(tmp_path/'run'), width=.05, size=28, epochs=1, bs=4, num_workers=0, schedule='one_cycle')
    card = read_card(tmp_path/'run/encoder.safetensors')
    run = prp_figures(str(video_folder), str(tmp_path/'run'), str(tmp_path/'a'), videos=4, shown=1)
    one = prp_figures(str(video_folder), str(tmp_path/'run/encoder.safetensors'), str(tmp_path/'b'), videos=4, shown=1, beside=f'best={tmp_path}/run/encoder.safetensors')
    heads = {o for o in re.findall('<h2>(.*?)</h2>', run.read_text())}-{o for o in re.findall('<h2>(.*?)</h2>', one.read_text())}
    assert heads=={'Rates','What speaks for a rate','Shortcuts','Reconstructions','A reconstruction beside the target','The hardest clips'}
    assert '<th>best</th>' in one.read_text() and f'"size": {card["size"]}' in one.read_text()

def test_a_run_is_opened_with_its_last_weights(video_folder, tmp_path):
    made = prp_pretrain(str(video_folder), str(tmp_path/'run'), width=.05, size=28, epochs=1, bs=4, num_workers=0, schedule='constant', heads='rate', rates='1,2')
    learn = load_run(tmp_path/'run', get_video_files(video_folder)[:4])
    for a,b in zip(made.model.state_dict().values(), learn.model.state_dict().values()): assert torch.equal(a, b)
    assert learn.dls.vocab==['1x','2x'] and learn.model.heads==('rate',)
    with pytest.raises(FileNotFoundError, match='no finished run'): load_run(tmp_path, get_video_files(video_folder))
