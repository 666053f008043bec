"Every difference between the paper and the authors' code is an argument, or moves no number"
import inspect,json,random
from collections import Counter
import numpy as np,pandas as pd,pytest,torch
from prp_fastai.all import *
from prp_fastai import all as everything
from conftest import pattern

small_recipe = presets['small']
table = preset_table()
small = dict(size=32, bs=4, num_workers=0)

def default(name):
    "The default of what `Class.field`, `function.argument` or `Class.method.argument` names"
    *path,arg = name.split('.')
    o = everything
    for p in path: o = getattr(o, p)
    return inspect.signature(o).parameters[arg].default

def test_all_rows_are_there(): assert list(table.index)==list(range(1, 48))

@pytest.mark.parametrize('row', table.index)
def test_row(row):
    o = table.loc[row]
    if not o.argument:
        assert o.note and o.paper==o.authors==''
        return
    assert default(o.argument)==o.paper, 'the paper is the default'
    arg = o.argument.split('.')[-1]
    if arg in field_names(): assert (getattr(paper, arg),getattr(authors, arg))==(o.paper,o.authors)
    else: assert o.paper==o.authors or o.note

def differ(a, b): return {k for k in field_names() if getattr(a, k)!=getattr(b, k)}

def test_each_difference_of_the_recipes_has_a_row():
    assert {o.split('.')[-1] for o in table.argument}>=differ(paper, authors) and not differ(paper, authors)&differ(paper, small_recipe)

def parts(dls): return [item_tfm(dls, o) for o in (PlaybackRate,CropVideo,PRPBatch)]

@pytest.mark.parametrize('preset', presets)
def test_preset_reaches_its_places(video_folder, preset):
    rated,crop,batch = parts(PRPDataLoaders.from_folder(video_folder, **small, preset=preset))
    got = dict(crop=crop.crop, short=rated.short, start=rated.start, redraw_valid=rated.redraw, fake_gt=batch.fake_gt,
               **{k:getattr(batch.motion, k) for k in ('diff','norm','per_channel','time_interp','eps')})
    assert got=={k: getattr(presets[preset], k) for k in got} and {*got}>=differ(paper, authors)

def test_a_name_wins_over_the_preset(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small, preset='authors', crop='random', diff='adjacent')
    rated,crop,batch = parts(dls)
    assert (crop.crop,batch.motion.diff,rated.short)==('random','adjacent','resample')
    with pytest.raises(ValueError, match='preset must be one of paper, authors'): PRPDataLoaders.from_folder(video_folder, **small, preset='unknown')

def test_authors_train(video_folder):
    learn = prp_learner(PRPDataLoaders.from_folder(video_folder, **small, preset='authors'), 'c3d', width=.05)
    M = learn.dls.one_batch()[3]
    assert M.shape[1]==3
    with learn.no_bar(): learn.fit(1)
    learn.show_results(); plt.close('all')

@pytest.mark.parametrize('bad', [dict(crop='left'), dict(short='skip'), dict(start='late'), dict(fake_gt='some'), dict(diff='all'), dict(attn='none')])
def test_choices_that_are_none(bad):
    with pytest.raises(ValueError, match=f'{first(bad)} must be'): prp_dblock(**bad)

def drawn(n, times=3000, **kwargs):
    "How often each start is drawn for rate 1 in a video of `n` frames"
    rated = PlaybackRate(rates=(1,), clip_len=4, **kwargs)
    rated.rng = random.Random(0)
    return Counter(rated.draw('x', n)[1] for _ in range(times))

def test_starts():
    "Of 10 frames: uniform draws each of 7; the authors draw 0..5 and take one off, so 0 comes twice as often, 5 and 6 never"
    even,off = drawn(10),drawn(10, start='off_by_one')
    assert set(even)==set(range(7)) and max(even.values())<1.3*min(even.values())
    assert set(off)==set(range(5)) and 1.7<off[0]/np.mean([off[i] for i in range(1,5)])<2.3

def numbered(path, n):
    "A lossless video whose brightness is the number of the frame, twice"
    return write_video(path, torch.arange(n).mul(2).to(torch.uint8)[None,:,None,None].expand(3,n,32,44), codec='ffv1', pix_fmt='bgr0')

def test_short_videos(tmp_path):
    short,long = numbered(tmp_path/'short.mkv', 20),numbered(tmp_path/'long.mkv', 40)
    def rates_and_files(**kwargs):
        rated = PlaybackRate(rates=(1,2), size=(27,37), **kwargs)
        rated.pool = [short,long]
        items = [rated((short,), split_idx=0) for _ in range(20)]
        return {int(k) for _,k in items},{Path(span.fn).name for span,_ in items},items
    assert rates_and_files()[:2]==({0},{'short.mkv'})
    rates,files,items = rates_and_files(short='resample')
    assert rates=={0,1} and files=={'short.mkv','long.mkv'}
    assert all((Path(span.fn).name=='long.mkv')==(int(k)==1) for span,k in items)
    rates,files,items = rates_and_files(short='loop')
    assert rates=={0,1} and files=={'short.mkv'}
    span = first(span for span,k in items if k==1)
    assert (span[0,:,0,0].long()//2).tolist()==[i%20 for i in range(32)]
    alone = PlaybackRate(rates=(2,), short='resample'); alone.pool = [short]
    with pytest.raises(VideoError, match='too short for rate 2, as are all others'): alone((short,), split_idx=0)

def test_a_resampled_video_is_of_the_training_items(video_folder, tmp_path):
    write_video(tmp_path/'short.mp4', pattern(20, 32, 44))
    files = [*get_video_files(video_folder), tmp_path/'short.mp4']
    dls = PRPDataLoaders.from_files(files[:8]+files[-1:], valid=files[8:12], **small, short='resample')
    assert item_tfm(dls, PlaybackRate).pool==list(dls.train_ds.items)
    assert all(b[0].shape[-1]==32 for b in dls.train)

def test_redrawing_and_centre_crop(video_folder):
    same,anew = (PRPDataLoaders.from_folder(video_folder, **small, valid_pct=.5, redraw_valid=o) for o in (False,True))
    def rates(dls): return [torch.cat([b[1] for b in dls.valid]).tolist() for _ in range(6)]
    assert len(set(map(tuple, rates(same))))==1 and len(set(map(tuple, rates(anew))))>1
    crop,frames = CropVideo(4, crop='center'),torch.arange(100).view(1,1,10,10)
    assert all(torch.equal(crop((frames,), split_idx=0)[0], frames[...,3:7,3:7]) for _ in range(5))

def naive_exclude(Y, G, M, s, r):
    "The authors' second loss: the mean over the frames of each clip that are raw frames"
    each = []
    for y,g,m,rate in zip(Y, G, M, s):
        real = [j for j in range(G.shape[2]) if j*rate%r==0]
        each.append((m[:,real]*(y[:,real]-g[:,real])**2).mean())
    return torch.stack(each)

@pytest.mark.parametrize('r', [1,2,4])
def test_excluded_frames(r):
    s = [1,2,4,8]
    frames,k = torch.randint(0, 256, (4*sum(s),3,16,16)).byte(),torch.arange(4)
    out = [PRPBatch(recon_rate=r, clip_len=4, fake_gt=o)([TensorVideo(frames), TensorCategory(k)]) for o in ('include','exclude')]
    Y = torch.rand(4,3,4*r,16,16)
    plain = [o.as_subclass(Tensor) for o in out[0]]
    torch.testing.assert_close(m_mse(Y, out[1][2].as_subclass(Tensor), out[1][3].as_subclass(Tensor)), naive_exclude(Y, plain[2], plain[3], s, r))

def naive_gauss(R, l):
    "The authors' first commit, from its description: the last of the windows that change most gets a bump of sigma 14"
    maps = []
    for b in range(R.shape[1]//l):
        frames = [R[:,b*l+i] for i in (0,5,10,15)]
        best = -1
        for x in range(0, 85, 7):
            for y in range(0, 85, 7):
                loss = sum((u[:,x:x+28,y:y+28]-v[:,x:x+28,y:y+28]).square().mean().item() for u,v in zip(frames, frames[1:]))
                if loss>=best: best,at = loss,(x,y)
        f = np.exp(-.5*((np.arange(112)[:,None]-at[0]-14)/14)**2) * np.exp(-.5*((np.arange(112)[None]-at[1]-14)/14)**2)
        maps.append((f-f.min())/(f.max()-f.min())*1.2+.8)
    return np.stack(maps)

def test_gauss_attention():
    R = torch.rand(3, 32, 112, 112, generator=torch.Generator().manual_seed(1))
    R[:,:16,40:70,60:90] *= torch.linspace(0, 3, 16)[:,None,None]
    motion = MotionAttention('gauss', diff='sparse4')
    M = motion(motion.pool(R.clamp(0,1))[None], torch.tensor([2]), (8,112,112))[0,0]
    np.testing.assert_allclose(M[::4], naive_gauss(R.clamp(0,1), 16), atol=1e-5)
    assert torch.equal(M[:4], M[:1].expand(4,-1,-1))

def test_without_convolutions_before_the_heads(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small)
    whole,less = (prp_learner(dls, 'c3d', width=.1, head_convs=o).model for o in (True,False))
    n = whole.encoder.num_features
    assert sum(p.numel() for p in whole.parameters())-sum(p.numel() for p in less.parameters())==2*(27*n*n+n+2*n)
    assert [o.shape for o in less(torch.rand(2,3,16,32,32))]==[o.shape for o in whole(torch.rand(2,3,16,32,32))]

def test_the_command_takes_presets(tmp_path, monkeypatch):
    got = {}
    class Stop(Exception): pass
    def from_files(*args, **kwargs): got.update(kwargs); raise Stop
    monkeypatch.setattr(PRPDataLoaders, 'from_files', from_files)
    with pytest.raises(Stop): prp_pretrain('sample', out=str(tmp_path), preset='authors', crop='random', attn='none')
    assert got['recipe']==get_recipe(authors, crop='random', attn=None)

@pytest.mark.parametrize('preset,given', [('paper',{}), ('small',{}), ('small',dict(opt_func='sgd', final='sigmoid', mean_colour=False, lambda_d=.3, lr=.02))])
def test_preset_reaches_the_learner(video_folder, preset, given):
    dls = PRPDataLoaders.from_folder(video_folder, **small)
    learn,want = prp_learner(dls, 'c3d', width=.05, preset=preset, **given),presets[preset].to_dict()|given
    learn.create_opt()
    assert isinstance(learn.opt, OptimWrapper)==(want['opt_func']=='adamw')
    assert (learn.lr,learn.loss_func.lambda_d)==(want['lr'],want['lambda_d'])
    end = learn.model.recon.layers[-1]
    assert [type(o) for o in end[1:]]==[type(o) for o in finals[want['final']]()]
    assert bool((end[0].bias.detach().cpu()-clip_colour(dls).cpu()).abs().max()<.2)==want['mean_colour']

def test_the_command_trains_as_small(tmp_path):
    learn = prp_pretrain('sample', out=str(tmp_path), preset='small', epochs=1, size=24, width=.02, num_workers=0, speed='')
    kept = json.loads((tmp_path/'settings.json').read_text())['settings']
    assert Recipe.from_dict(kept)==get_recipe('small', epochs=1, size=24, width=.02)==learn.recipe
    assert isinstance(learn.opt, OptimWrapper) and learn.dls.bs==16 and len(learn.model.recon.layers[-1])==1

def test_mean_colour_needs_a_linear_end(video_folder):
    dls = PRPDataLoaders.from_folder(video_folder, **small)
    with pytest.raises(ValueError, match="mean_colour needs final='linear' or 'skip', got 'bn_relu'"): prp_learner(dls, mean_colour=True)
    with pytest.raises(ValueError, match="got 'residual'; for that, set mean_colour=False"): prp_learner(dls, width=.05, preset='small', final='residual')
    assert prp_learner(dls, width=.05, preset='small', final='residual', mean_colour=False).model.recon.final=='residual'
    skip = prp_learner(dls, width=.05, preset='small', final='skip').model.recon
    assert (skip.layers[-1][0].bias.detach().cpu()-clip_colour(dls).cpu()).abs().max()<.2
    with pytest.raises(ValueError, match='opt_func must be one of sgd, adamw'): prp_pretrain('sample', opt_func='adam')
