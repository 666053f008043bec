"Ten clips of each video, and what is made of them"
import inspect,shutil
import numpy as np,pandas as pd,pytest,torch
from prp_fastai.all import *
from conftest import pattern

def plain_clips(path, n_clips=10, l=16, size=24):
    "fidelity of the ten-clip protocol, word for word: frames one by one, scaled, centre-cropped, RGB/255"
    n = probe(path).n_frames
    H,W = round(size*128/112),round(size*171/112)
    clips = []
    for i in np.linspace(l/2, n-l/2, n_clips):
        start = int(i-l/2)
        frames = [read_frames(path, [f], size=(H,W))[:,0] for f in range(start, start+l)]
        top,left = round((H-size)/2),round((W-size)/2)
        clips.append(torch.stack([o.as_subclass(Tensor)[:,top:top+size,left:left+size].float()/255 for o in frames], 1))
    return torch.stack(clips)

@pytest.mark.parametrize('workers', [0,2])
def test_ten_clips_are_those_of_the_protocol(video_folder, tmp_path, workers):
    short = write_video(tmp_path/'short [1].mp4', pattern(21, 32, 44))
    files = get_video_files(video_folder)[:2] + [short]
    got = list(clips_loader(files, size=24, bs=2, num_workers=workers))
    assert [len(o) for o,_ in got]==[2,1], 'the last batch is kept'
    assert torch.cat([i for _,i in got]).tolist()==[0,1,2]
    for a,b in zip(torch.cat([o for o,_ in got]), files, strict=True): assert torch.equal(a, plain_clips(b))

def test_one_clip_is_the_first(video_folder):
    path = get_video_files(video_folder)[0]
    clips,_ = clips_loader([path], n_clips=1, size=24, num_workers=0).one_batch()
    assert torch.equal(clips[0], plain_clips(path, n_clips=1)) and linspace_starts(150, 1)==[0]

@pytest.mark.parametrize('workers', [0,2])
def test_a_video_without_clips_is_named(video_folder, tmp_path, workers):
    good,short,broken = get_video_files(video_folder)[0],write_video(tmp_path/'short.mp4', pattern(15)),tmp_path/'broken.mp4'
    broken.write_bytes(b'not a video')
    with pytest.raises(VideoError, match='short.mp4: 15 frames are too few'): list(clips_loader([good,short], size=24, num_workers=workers))
    with pytest.raises(VideoError, match='broken.mp4'): list(clips_loader([good,broken], size=24, num_workers=workers))
    with pytest.raises(FileNotFoundError, match='1 of 2 videos are missing, the first is .*gone.mp4'): clips_loader([good, tmp_path/'gone.mp4'])

def test_other_starts(video_folder):
    "Windows side by side, as another protocol takes them"
    path = get_video_files(video_folder)[0]
    clips,_ = clips_loader([path], size=24, starts=lambda n: range(0, n-31, 32), clip_len=32, num_workers=0).one_batch()
    assert clips.shape==(1,4,3,32,24,24)

class Brightness(nn.Module):
    "An encoder that knows one thing, the mean brightness of a clip in each of nine places; no weights matter"
    num_features = 9
    def __init__(self): super().__init__(); self.bias = nn.Parameter(torch.zeros(1))
    def reset_parameters(self): pass
    def forward(self, x): return F.adaptive_avg_pool3d(x.mean(1, keepdim=True), (x.shape[2],3,3)).flatten(3).transpose(1,3)[...,None] + self.bias

@pytest.fixture(scope='module')
def two_classes(tmp_path_factory):
    "Dark and bright videos, six a class, two of them to test on; lengths differ"
    path = tmp_path_factory.mktemp('labelled [1]')
    rows = []
    for i in range(12):
        c = ('dark','bright')[i%2]
        frames = pattern(20+3*i, 32, 44, seed=i)//3 + (150 if c=='bright' else 0)
        (path/c).mkdir(exist_ok=True)
        write_video(path/c/f'v_{c}_g{i//2:02}_c01.mp4', frames, crf=20, threads=1)
        rows.append((f'{c}/v_{c}_g{i//2:02}_c01.mp4', c, i>=8))
    df = pd.DataFrame(rows, columns=['path','label','is_test'])
    df.to_csv(path/'labels.csv', index=False)
    return path,df

tiny = dict(size=24, bs=2, num_workers=0)

@pytest.fixture
def learn(two_classes):
    path,df = two_classes
    return video_learner(VideoDataLoaders.from_df(df, path, test_col='is_test', valid_pct=.25, **tiny), Brightness())

@pytest.mark.parametrize('avg', ['logits','prob'])
@pytest.mark.parametrize('clips', [1,10])
def test_votes_are_those_of_the_protocol(learn, two_classes, avg, clips):
    "Word for word: each clip alone through the network, the mean of logits (or of softmax), argmax, the share that is right; cross entropy on the mean"
    path,df = two_classes
    right,losses = [],[]
    for o in df[df.is_test].itertuples():
        logits = [learn.model.eval()(c[None])[0].detach() for c in plain_clips(path/o.path, clips)]
        votes = sum(logits)/len(logits) if avg=='logits' else sum(F.softmax(l, 0) for l in logits)/len(logits)
        true = learn.dls.vocab.o2i[o.label]
        right.append(votes.argmax().item()==true)
        losses.append(F.cross_entropy(votes[None], tensor([true])).item() if avg=='logits' else -votes[true].log().item())
    interp = VideoInterpretation.from_learner(learn, clips, avg)
    assert recognition_accuracy(learn, clips, avg)==interp.accuracy==np.mean(right)
    np.testing.assert_allclose(interp.losses, losses, rtol=1e-4)
    assert interp.confusion_matrix().sum()==len(right)==4

def test_averages_differ_and_unknown_ones_are_refused():
    logits = tensor([[[9.,0.],[0.,2.],[0.,2.]]])
    assert average_clips(logits).argmax(1).item()==0 and average_clips(logits, 'prob').argmax(1).item()==1
    with pytest.raises(ValueError, match="avg must be 'logits' or 'prob'"): average_clips(logits, 'mean')

def test_it_learns_and_says_so(learn):
    with learn.no_bar(), learn.no_logging(): learn.fit(30, .05)
    interp = VideoInterpretation.from_learner(learn)
    assert interp.accuracy==1 and recognition_accuracy(learn, df=learn.dls.test_df.iloc[:1])==1
    assert interp.per_class().accuracy.tolist()==[1,1] and interp.per_class().confused_with.tolist()==['','']
    interp.df.loc[0,'label'] = 'bright'
    wrong = VideoInterpretation.from_learner(learn, df=interp.df)
    assert wrong.accuracy==.75 and wrong.most_confused()==[('bright','dark',1)] and wrong.top_losses(1)[1].item()==0
    x,probs,targs,decoded,losses = wrong[tensor([0,3])]
    assert x.shape==(2,3,16,24,24) and (targs!=decoded).tolist()==[True,False]
    wrong.plot_top_losses(2); wrong.plot_confusion_matrix(); learn.show_results(); learn.dls.show_batch()
    assert learn.predict(learn.dls.test_df.path[0])[0]=='dark'

def test_frozen_encoders_stay_and_groups_have_their_own_rates(learn, two_classes):
    net = c3d(.05)
    ft = video_learner(learn.dls, encoder=net)
    assert ft.model.encoder is not net
    ft.freeze()
    before = [p.clone() for p in ft.model.encoder.conv5[0][0].parameters()]
    with ft.no_bar(), ft.no_logging(): ft.fit(1, .1)
    assert all(torch.equal(a, b) for a,b in zip(before, ft.model.encoder.conv5[0][0].parameters()))
    ft.unfreeze()
    with ft.no_bar(), ft.no_logging(): ft.fit(1, slice(1e-4,1e-2))
    assert [round(o['lr'], 6) for o in ft.opt.hypers]==[1e-4,1e-2] and [o['lr_mult'] for o in ft.opt.hypers]==[1,1]
    assert not all(torch.equal(a, b) for a,b in zip(before, ft.model.encoder.conv5[0][0].parameters()))

def test_encoders_come_from_everywhere(learn, tmp_path):
    dls = PRPDataLoaders.from_df(learn.dls.test_df.assign(v=[0,0,1,1]), valid_col='v', rates=(1,2), **tiny)
    pre = prp_learner(dls, 'r3d', width=.05)
    pre.save_encoder(tmp_path/'e.safetensors')
    want = pre.model.encoder.conv5.conv2.weight
    for o in (pre, pre.model, pre.model.encoder, tmp_path/'e.safetensors', str(tmp_path/'e.safetensors')):
        assert torch.equal(get_encoder(o, 'r3d').conv5.conv2.weight, want)
        with pytest.raises(ValueError, match='is no c3d'): video_learner(learn.dls, 'c3d', encoder=o)
    authors = PRPModel('r3d')
    torch.save(to_authors(authors), tmp_path/'authors.pth.tar')
    assert torch.equal(get_encoder(tmp_path/'authors.pth.tar').conv1[0].weight, authors.encoder.conv1[0].weight)
    with pytest.raises(FileNotFoundError): get_encoder(tmp_path/'none.pth.tar')

def test_a_stopped_run_goes_on(learn, tmp_path):
    "To the weights and the table of one that was not stopped; a complete one goes on where it is given more epochs"
    def fit(name, n_epoch, **kwargs):
        set_seed(5)
        for i,o in enumerate(learn.dls): o.rng.seed(i)
        res = video_learner(learn.dls, c3d(.05), path=tmp_path/name, model_dir='.')
        with res.no_bar(), res.no_logging(): history = res.fit_paper(n_epoch, 1e-2, every=3, **kwargs)
        return res,[{k:v for k,v in o.items() if k!='time'} for o in history]
    class Stop(Callback):
        def after_batch(self):
            if self.epoch==1 and self.iter==1: raise KeyboardInterrupt
    whole,history = fit('whole', 4)
    with pytest.raises(KeyboardInterrupt): fit('broken', 4, cbs=Stop())
    broken,again = fit('broken', 4, resume=True)
    assert again==history and [o['epoch'] for o in history]==[0,1,2,3]==pd.read_csv(tmp_path/'broken/history.csv').epoch.tolist()
    assert all(torch.equal(x, y) for x,y in zip(whole.model.parameters(), broken.model.parameters())) and abs(broken.opt.hypers[0]['lr']-1e-3)<1e-9
    assert abs(broken.validate()[0]-min(o['valid_loss'] for o in history))<1e-5
    assert fit('broken', 5, resume=True)[1][:4]==history
    assert fit('whole', 4, resume=True)[1]==history and len(fit('whole', 1)[1])==1

def test_the_papers_steps(learn):
    rates = []
    class See(Callback):
        order = 65
        def before_batch(self): rates.append(self.opt.hypers[0]['lr']) if self.training else None
    with learn.no_bar(), learn.no_logging(): learn.fit(5, 1e-3, cbs=[StepLR(2), See()])
    n = len(learn.dls.train)
    np.testing.assert_allclose(rates, np.repeat([1e-3,1e-3,1e-4,1e-4,1e-5], n))
    p = inspect.signature(Learner.fit_paper).parameters
    assert (p['n_epoch'].default,p['lr'].default,p['every'].default,p['factor'].default)==(150,1e-3,100,.1)
    assert all(o['mom']==.9 and o['wd']==5e-4 for o in learn.opt.hypers)

def test_probes_find_what_is_there(two_classes, tmp_path):
    path,df = two_classes
    df = df.assign(path=[str(path/o) for o in df.path])
    table = probe_table(Brightness(), df, size=24, num_workers=0, k=50)
    assert table.loc['pretrained','linear']==1 and list(table.index)==['pretrained','random'] and list(table)==['linear','knn']
    alone = probe_table(Brightness(), df, size=24, num_workers=0, k=1, baseline=False)
    assert alone.loc['pretrained','knn']==1 and list(alone.index)==['pretrained']
    X = pooled_features(Brightness(), df.path[:3].tolist(), clips=4, size=24, num_workers=0)
    for x,o in zip(X, df.path): np.testing.assert_allclose(x, np.mean([Brightness()(c[None])[0].mean((1,2,3)).detach() for c in plain_clips(o, 4)], 0), rtol=1e-4)
    for bad,says in ((df.assign(label='a'), 'one class'), (df.assign(is_test=False), 'a probe needs both'), (df.assign(is_test=True), 'a probe needs both')):
        with pytest.raises(ValueError, match=says): probe_table(Brightness(), bad, size=24)

def test_random_weights_are_drawn_anew():
    net = r2plus1d(.05)
    a,b,c = reinitialized(net),reinitialized(net),reinitialized(net, seed=1)
    for k,v in net.state_dict().items():
        if v.ndim>1: assert not torch.equal(v, a.state_dict()[k]) and not torch.equal(a.state_dict()[k], c.state_dict()[k])
        assert torch.equal(a.state_dict()[k], b.state_dict()[k])

def test_three_splits():
    dfs = {k: read_ucf101(sample_videos(), k) for k in (1,2,3)}
    table = split_table({1:.2, 2:.4, 3:.9}, dfs)
    assert table.loc['mean','accuracy']==pytest.approx(.5) and table.seen.tolist()==pytest.approx([0,1,1,2/3])

@pytest.mark.parametrize('change,kwargs,says', [
    (dict(label='a'), {}, "one class, 'a'"), (dict(label=None), {}, 'has no label'), (dict(is_test=True), {}, '0 training videos'),
    (dict(label=['a','b']*5+['a','c']), dict(test_col='is_test'), "its class 'c' has no training videos"),
    ({}, dict(bs=64), 'do not fill a batch of 64'), (dict(path='gone.mp4'), {}, 'gone.mp4')])
def test_what_cannot_be_learned_is_said_first(two_classes, change, kwargs, says):
    path,df = two_classes
    with pytest.raises((ValueError,FileNotFoundError), match=says): VideoDataLoaders.from_df(df.assign(**change), path, **{**tiny, 'test_col':'is_test', **kwargs})

def test_folders_and_tables_agree(two_classes, tmp_path):
    path,df = two_classes
    a = VideoDataLoaders.from_folder(path, seed=1, **tiny)
    b = VideoDataLoaders.from_csv(path, seed=1, **tiny)
    assert a.vocab==b.vocab==['bright','dark'] and len(a.train_ds)==len(b.train_ds)==10
    assert all(a.vocab[y]==parent_label(o) for o,(x,y) in zip(a.valid_ds.items, a.valid_ds))
    for part,rows in (('train',range(0,6)), ('valid',range(6,8)), ('test',range(8,12))):
        for i in rows: shutil.copy(path/df.path[i], Path(mk(tmp_path/part/df.label[i]))/Path(df.path[i]).name)
    c = VideoDataLoaders.from_folder(tmp_path, **tiny)
    assert (len(c.train_ds),len(c.valid_ds),len(c.test_df))==(6,2,4) and c.vocab==a.vocab
def mk(o): o.mkdir(parents=True, exist_ok=True); return o

def test_a_broken_video_to_test_on_is_named(two_classes, tmp_path):
    path,df = two_classes
    shutil.copytree(path, tmp_path/'all')
    (tmp_path/'all'/df.path[11]).write_bytes(b'no video')
    with pytest.raises(ValueError, match='v_bright_g05_c01.mp4 is a test video and cannot be used'): VideoDataLoaders.from_df(df, tmp_path/'all', test_col='is_test', **tiny)
    dls = VideoDataLoaders.from_df(df[~df.is_test].reset_index(drop=True), tmp_path/'all', **tiny)
    Path(dls.train_ds.items[0]).write_bytes(b'gone bad since')
    for b in dls.train: assert len(b[0])==2
