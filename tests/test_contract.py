"fastai's contract: every parameter that a factory or a learner shows works, ours first and the user's after"
import inspect,re
import numpy as np,pandas as pd,pytest,torch
from prp_fastai.all import *
from conftest import pattern

@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "Sixteen videos of two classes: as a folder, a table, and in the shapes of UCF101 and HMDB51, where split 2 names a video that is not there"
    root = tmp_path_factory.mktemp('labelled')
    names = [(c, f'v_{c}_g{g:02}_c{k:02}.mp4') for c in 'ab' for g in range(1,5) for k in (1,2)]
    for i,(c,o) in enumerate(names):
        (root/f'videos/{c}').mkdir(parents=True, exist_ok=True)
        write_video(root/f'videos/{c}/{o}', pattern(140, 32, 44, seed=i), crf=20, threads=1)
    def film(c, o): return o.replace(f'v_{c}_', '').replace('_', f'_{c}_') # as HMDB51 names clips
    for o in ('ucf/ucfTrainTestlist','hmdb/testTrainMulti_7030_splits','hmdb/video/a','hmdb/video/b'): (root/o).mkdir(parents=True)
    (root/'ucf/UCF-101').symlink_to(root/'videos')
    for c,o in names: (root/f'hmdb/video/{c}/{film(c, o)}').symlink_to(root/f'videos/{c}/{o}')
    def is_test(o): return '_g04_' in o
    for k in (1,2):
        more = [('a','v_a_g09_c01.mp4')]*(k==2)
        for part,test in (('train',False),('test',True)):
            rows = [f'{c}/{o}{"" if test else " "+str(1+(c=="b"))}' for c,o in names+more if is_test(o)==test]
            (root/f'ucf/ucfTrainTestlist/{part}list{k:02}.txt').write_text('\n'.join(rows))
        for c in 'ab': (root/f'hmdb/testTrainMulti_7030_splits/{c}_test_split{k}.txt').write_text('\n'.join(f'{film(d, o)} {1+is_test(o)}' for d,o in names+more if d==c))
    (root/'ucf/ucfTrainTestlist/classInd.txt').write_text('1 a\n2 b\n')
    df = pd.DataFrame(dict(path=[f'{c}/{o}' for c,o in names], label=[c for c,_ in names], other=[f'../videos/{c}/{o}' for c,o in names],
        kind=['ab'[i%2] for i in range(16)], tags=['a|b' if i%3 else 'a' for i in range(16)], held=[i%4==0 for i in range(16)], asked=[i%4==1 for i in range(16)], film=[i//2 for i in range(16)]))
    df.to_csv(root/'videos/labels.csv', index=False)
    df.to_csv(root/'videos/others.csv', index=False)
    df.to_csv(root/'videos/semi.csv', index=False, sep=';')
    cache_videos([o for d in ('videos','ucf/UCF-101','hmdb/video') for c in 'ab' for o in sorted((root/d/c).iterdir())], root/'cache', frame_size(24))
    return root

try: torchcodec = get_reader('torchcodec')
except ImportError: torchcodec = None

class Mark(Transform):
    "Leaves all as it is"
    order = 99

def halves(o): return list(range(0, len(o), 2)),list(range(1, len(o), 2))
def opened(dls): return first(item_tfm(dls, o) for o in (PlaybackRate,RandomClip) if item_tfm(dls, o)).reader
def n_valid(dls): return len(dls.valid_ds)/(len(dls.train_ds)+len(dls.valid_ds))
def groups(ds): return {(o.parent.name, re.search(r'g\d\d', o.stem)[0]) for o in ds.items}

fields_of_clips = dict(rates=(1,2), clip_len=8, recon_rate=1, short='loop', start='off_by_one', redraw_valid=True, seed=7, size=28, crop='center', flip=.5, area=.4, colour=.4,
                       attn=None, diff='sparse4', norm='block', per_channel=True, time_interp='blockwise', eps=1e-6, fake_gt='exclude')
def of_recipe(k, v): return dict.fromkeys([k], v),lambda d: getattr(d.recipe, k)==v

def loaders_values(root):
    "For each parameter of DataLoaders: keywords with another value than its default, and what then holds"
    files = [root/'videos'/o for o in pd.read_csv(root/'videos/labels.csv').path]
    res = {k: of_recipe(k, v) for k,v in fields_of_clips.items()}
    res['seed'] = dict(seed=7),lambda d: d.recipe.seed==7 or isinstance(d, VideoDataLoaders) and {o.name for o in d.valid_ds.items}=={o.name for o in d.again().valid_ds.items}
    return res | dict(
        valid=(dict(valid=files[12:]), lambda d: list(d.valid_ds.items)==files[12:]),
        valid_pct=(dict(valid_pct=.5), lambda d: n_valid(d)==.5),
        by_group=(dict(by_group=True), lambda d: not groups(d.train_ds)&groups(d.valid_ds)),
        manifest=(dict(manifest=root/'manifest.csv'), lambda d: (root/'manifest.csv').exists()),
        cache=(dict(cache=root/'cache'), lambda d: all(opened(d).cached(o) for o in d.train_ds.items)),
        backend=(dict(backend='torchcodec'), lambda d: opened(d).reader is get_reader('torchcodec')),
        path=(dict(path=root), lambda d: d.path==root),
        fps=(dict(fps=20.), lambda d: opened(d).fps==20 and (isinstance(d, VideoDataLoaders) or d.recipe.fps==20)),
        bs=(dict(bs=3), lambda d: d.bs==3),
        num_workers=(dict(num_workers=1), lambda d: d.train.fake_l.num_workers==1),
        device=(dict(device='cpu'), lambda d: str(d.device)=='cpu'),
        recipe=(dict(recipe='authors'), lambda d: d.recipe==get_recipe(authors, size=24, bs=2)),
        splitter=(dict(splitter=halves), lambda d: n_valid(d)==.5),
        yuv=(dict(yuv=True), lambda d: item_tfm(d, PlaybackRate).yuv),
        read_size=(dict(read_size=(48,64)), lambda d: item_tfm(d, PlaybackRate).read_size==(48,64)),
        item_tfms=(dict(item_tfms=Mark()), lambda d: isinstance(d.after_item.fs[-1], Mark) and len(d.after_item.fs)>2),
        batch_tfms=(dict(batch_tfms=[Mark()]), lambda d: isinstance(d.after_batch.fs[-1], Mark) and len(d.after_batch.fs)>1),
        extensions=(dict(extensions=['.mp4','.avi']), lambda d: n_valid(d)>0),
        split=(dict(split=2, allow_missing=True), lambda d: len(d.test_df)==4),
        allow_missing=(dict(split=2, allow_missing=True), lambda d: len(d.test_df)==4),
        fn_col=(dict(fn_col='other'), lambda d: '..' in d.train_ds.items[0].parts),
        label_col=(dict(label_col='kind'), lambda d: [d.vocab[o[1]] for o in d.train_ds]==[str('ab'[int(o.stem[-1])-1]) for o in d.train_ds.items]),
        valid_col=(dict(valid_col='held'), lambda d: n_valid(d)==.25),
        test_col=(dict(test_col='asked'), lambda d: len(d.test_df)==4),
        group_col=(dict(group_col='film', by_group=True), lambda d: not groups(d.train_ds)&groups(d.valid_ds)),
        label_delim=(dict(label_col='tags', label_delim='|'), lambda d: isinstance(d.train_ds[0][1], TensorMultiCategory)),
        csv_fname=(dict(csv_fname='others.csv'), lambda d: n_valid(d)>0),
        header=(dict(header=0), lambda d: len(d.train_ds)+len(d.valid_ds)==16),
        delimiter=(dict(csv_fname='semi.csv', delimiter=';'), lambda d: n_valid(d)>0))

factories = [PRPDataLoaders.from_files, PRPDataLoaders.from_folder, PRPDataLoaders.from_df, PRPDataLoaders.from_csv, VideoDataLoaders.from_df,
             VideoDataLoaders.from_csv, VideoDataLoaders.from_folder, VideoDataLoaders.from_ucf101, VideoDataLoaders.from_hmdb51]

def shown(f): return [k for k,o in inspect.signature(f).parameters.items() if o.default is not o.empty]

def call(f, root, **kwargs):
    "Factory `f` with what it cannot do without"
    videos,name = root/'videos',f.__name__
    df = pd.read_csv(videos/'labels.csv')
    if 'path' in kwargs: df['path'] = 'videos/'+df.path
    elif name=='from_df': kwargs['path'] = videos
    source = dict(from_files=get_video_files(videos), from_df=df, from_ucf101=root/'ucf', from_hmdb51=root/'hmdb').get(name, videos)
    return f(source, **{**dict(size=24, bs=2, num_workers=0), **kwargs})

@pytest.mark.parametrize('f,k', [(f, k) for f in factories for k in shown(f)], ids=lambda o: o if isinstance(o, str) else o.__qualname__)
def test_every_parameter_of_the_dataloaders(data, f, k):
    kwargs,holds = loaders_values(data)[k]
    assert kwargs[k]!=inspect.signature(f).parameters[k].default
    if k=='backend' and not torchcodec: # it says so
        with pytest.raises(ImportError, match='torchcodec'): call(f, data, **kwargs)
        return
    dls = call(f, data, **kwargs)
    dls.again = lambda: call(f, data, **kwargs)
    assert holds(dls)
    assert dls.one_batch()[0].shape[0]==dls.bs

def learner_values(root):
    "For each parameter of `prp_learner`: keywords with another value than its default, and what then holds"
    def loss(pred, rate, G, M): return F.mse_loss(pred[-1], G)
    def one_group(m): return [params(m)]
    class Mine(Callback): pass
    def is_it(k, v): return dict.fromkeys([k], v),lambda l: getattr(l.recipe, k)==v
    def hyper(k, v): return dict.fromkeys([k], v),lambda l: l.opt.hypers[0][k]==v
    return dict(arch=(dict(arch='r3d'), lambda l: isinstance(l.model.encoder, R3D)), heads=(dict(heads=('recon',)), lambda l: l.model.heads==('recon',)),
        recipe=(dict(recipe='small'), lambda l: isinstance(l.opt, OptimWrapper)), speed=(dict(speed=''), lambda l: not hasattr(l, 'fold_upsampling')),
        loss_func=(dict(loss_func=loss), lambda l: l.loss_func is loss and l.metrics.attrgot('name')==['rate_accuracy']),
        splitter=(dict(splitter=one_group), lambda l: len(l.opt.param_lists)==1),
        metrics=(dict(metrics=[psnr]), lambda l: l.metrics.attrgot('name')==['rate_accuracy','loss_d','loss_g','psnr']),
        cbs=(dict(cbs=Mine), lambda l: isinstance(l.cbs[-1], Mine) or any(isinstance(o, Mine) for o in l.cbs) and hasattr(l, 'stop_at_non_finite')),
        width=(dict(width=.1), lambda l: l.model.encoder.num_features>30), head_convs=(dict(head_convs=False), lambda l: not isinstance(l.model.rate[0], nn.Conv3d)),
        final=(dict(final='sigmoid'), lambda l: isinstance(l.model.recon.layers[-1][-1], nn.Sigmoid)),
        mean_colour=(dict(mean_colour=True, final='linear'), lambda l: l.model.recon.layers[-1][0].bias.min()>.1),
        lambda_d=(dict(lambda_d=.5), lambda l: l.loss_func.lambda_d==.5), lambda_g=(dict(lambda_g=.5), lambda l: l.loss_func.lambda_g==.5),
        opt_func=(dict(opt_func=Adam, wd=.3), lambda l: type(l.opt)==Optimizer and l.wd==.3), lr=hyper('lr', .5), mom=hyper('mom', .5), wd=hyper('wd', .3),
        head_lr_mult=(dict(head_lr_mult=3.), lambda l: l.opt.hypers[-1]['lr_mult']==3), schedule=is_it('schedule', 'constant'), patience=is_it('patience', 3), epochs=is_it('epochs', 2),
        path=(dict(path=root), lambda l: l.path==root), model_dir=(dict(model_dir='there'), lambda l: l.model_dir=='there'), train_bn=(dict(train_bn=False), lambda l: not l.train_bn),
        moms=(dict(moms=(.9,.8,.9)), lambda l: l.moms==(.9,.8,.9)), default_cbs=(dict(default_cbs=False), lambda l: not hasattr(l, 'recorder')))

@pytest.fixture(scope='module')
def dls(data): return call(PRPDataLoaders.from_folder, data)

@pytest.mark.parametrize('k', shown(prp_learner))
def test_every_parameter_of_the_pretraining_learner(data, dls, k):
    kwargs,holds = learner_values(data)[k]
    assert kwargs[k]!=inspect.signature(prp_learner).parameters[k].default
    learn = prp_learner(dls, **{**dict(width=.05), **kwargs})
    learn.create_opt()
    assert holds(learn)
    loss = learn.loss_func(learn.model(*(o.as_subclass(Tensor) for o in dls.one_batch()[:1])), *(o.as_subclass(Tensor) for o in dls.one_batch()[1:]))
    assert torch.isfinite(loss)

@pytest.mark.parametrize('schedule', ['plateau','one_cycle','constant'])
def test_a_learner_trains_as_its_recipe_says(dls, schedule):
    learn = prp_learner(dls, width=.05, schedule=schedule, epochs=2, lr=.02, patience=1)
    class Watch(Callback):
        def before_fit(self): self.rates,self.also = [],[o.name for o in self.learn.cbs]
        def before_batch(self): self.rates.append(self.opt.hypers[0]['lr'])
    watch = Watch()
    with learn.no_bar(), learn.no_logging(): learn.fit_recipe(watch)
    assert len(learn.recorder.values)==2 and (len(set(watch.rates))>2)==(schedule=='one_cycle') and max(watch.rates)<=.0201
    assert ('reduce_lr_on_plateau' in watch.also)==(schedule=='plateau')

def test_every_parameter_of_the_classifier(data, tmp_path):
    dls = call(VideoDataLoaders.from_folder, data)
    encoder = prp_learner(call(PRPDataLoaders.from_folder, data), 'r3d', width=.05)
    loss,values = LabelSmoothingCrossEntropyFlat(),{k: v for k,v in learner_values(data).items() if k in ('splitter','path','model_dir','train_bn','moms','default_cbs')}
    values |= dict(arch=(dict(arch='r3d'), lambda l: isinstance(l.model.encoder, R3D)), encoder=(dict(arch=None, encoder=encoder), lambda l: isinstance(l.model.encoder, R3D)),
        width=(dict(width=.1), lambda l: l.model.encoder.num_features>30), speed=(dict(speed=''), lambda l: not hasattr(l, 'channels_last3_d')), lr=(dict(lr=.5), lambda l: l.lr==.5),
        opt_func=(dict(opt_func=Adam), lambda l: type(l.opt)==Optimizer), metrics=(dict(metrics=[accuracy,error_rate]), lambda l: len(l.metrics)==2),
        loss_func=(dict(loss_func=loss), lambda l: l.loss_func is loss), cbs=(dict(cbs=GradientAccumulation(4)), lambda l: hasattr(l, 'gradient_accumulation')),
        wd=(dict(wd=.3), lambda l: l.wd==.3))
    for k in shown(video_learner):
        kwargs,holds = values[k]
        learn = video_learner(dls, **{**dict(arch='c3d', width=.05), **kwargs})
        learn.create_opt()
        assert holds(learn), k
        assert torch.isfinite(learn.loss_func(learn.model(dls.one_batch()[0].as_subclass(Tensor)), dls.one_batch()[1])), k

def test_the_datablocks_take_what_datablock_takes(data):
    files = L(get_video_files(data/'videos'))
    for f,kwargs in ((prp_dblock,{}), (video_dblock,dict(get_y=lambda o: 'ba'[o.stem[-1]=='1'], vocab=['b','a'], multi=False, clip_len=8, flip=.5))):
        reader = partial(VideoReader)
        dblock = f(size=24, get_items=get_video_files, splitter=halves, reader=reader, item_tfms=Mark(), batch_tfms=Mark(), **kwargs)
        dls = dblock.dataloaders(data/'videos', bs=2, num_workers=0)
        assert n_valid(dls)==.5 and opened(dls) is reader and all(isinstance(o.fs[-1], Mark) for o in (dls.after_item,dls.after_batch))
        dls.one_batch()
    several = video_dblock(size=24, get_y=lambda o: ['a'], vocab=['a','b'], multi=True).dataloaders(files, bs=2, num_workers=0)
    assert several.one_batch()[1].shape==(2,2)
    with pytest.raises(TypeError, match='sound'): prp_dblock(sound=1)

@pytest.mark.parametrize('k', ['area','colour'])
def test_augmentation_of_a_recipe_changes_training_clips_alone(data, k):
    plain,dls = (call(PRPDataLoaders.from_folder, data, seed=1, **o) for o in ({}, {k:.4}))
    x,G,M = (dls.one_batch()[i].as_subclass(Tensor) for i in (0,2,3))
    assert x.shape==plain.one_batch()[0].shape and not isinstance(first(plain.after_batch.fs[1:], risinstance(AugVideo)), AugVideo)
    tfm = first(dls.after_batch.fs, risinstance(AugVideo))
    before = plain.train.one_batch()
    set_seed(0)
    after = tfm(before, split_idx=0)
    assert not torch.equal(before[0], after[0]) and torch.equal(after[0], after[2][:,:,::2]), 'X is still every r-th frame of G'
    for a,b in zip(plain.valid.one_batch(), dls.valid.one_batch()): assert torch.equal(a, b)

def test_what_belongs_to_other_pretexts_is_refused(data, dls):
    with pytest.raises(ValueError, match="clips='pair' is for ClipsDataLoaders"): call(PRPDataLoaders.from_folder, data, clips='pair')
    with pytest.raises(ValueError, match="clips='pair' is for ClipsDataLoaders"): call(PRPDataLoaders.from_folder, data, recipe='relative')
    with pytest.raises(ValueError, match='jitter is for ClipsDataLoaders'): call(PRPDataLoaders.from_folder, data, jitter=.2)
    with pytest.raises(ValueError, match='lambda_d and lambda_g'): prp_learner(dls, width=.05, weights=(1.,2.))
    with pytest.raises(ValueError, match="'one' is for PRPDataLoaders"): call(ClipsDataLoaders.from_folder, data)
    with pytest.raises(ValueError, match="does not use recon_rate, attn"): call(ClipsDataLoaders.from_folder, data, recipe='rank', recon_rate=4, attn=None)
    with pytest.raises(ValueError, match="does not use lambda_d"): pretext_learner(call(ClipsDataLoaders.from_folder, data, recipe='rank', rates=(1,2)), width=.05, lambda_d=.5)

def test_valid_and_a_splitter_together_are_refused(data):
    with pytest.raises(ValueError, match='not both'): call(PRPDataLoaders.from_folder, data, valid=get_video_files(data/'videos')[:2], splitter=halves)
    with pytest.raises(ValueError, match='not both'): call(VideoDataLoaders.from_df, data, valid_col='held', splitter=halves)

def test_groups_of_a_table_are_taken_as_they_are(data):
    "Numbers, and names that differ in what looks like a clip's number"
    df = pd.read_csv(data/'videos/labels.csv')
    for film in (df.film, df.film.map('x_c{:02}'.format), df.film.map('x.{}'.format)):
        dls = VideoDataLoaders.from_df(df.assign(film=film), path=data/'videos', group_col='film', by_group=True, valid_pct=.25, size=24, bs=2, num_workers=0)
        assert n_valid(dls)==.25

@pytest.mark.parametrize('per_frame', [False,True])
def test_augmentation_moves_what_it_should(data, per_frame):
    "Colours: X is still every r-th frame of G, M is as it was, frames of a clip change alike or not; positions: M moves along; validation as it was"
    from torchvision.transforms import v2
    plain = call(PRPDataLoaders.from_folder, data)
    X,k,G,M = plain.one_batch()
    x = X[:,:,:1].expand_as(X) # a still clip
    def change(tfm, *o): return AugVideo(tfm, per_frame=per_frame)((*o,), split_idx=0)
    colours = change(v2.ColorJitter(brightness=(.2,.8)), X, k, torch.ones_like(G), M)
    assert torch.equal(colours[0], colours[2][:,:,::2]) and torch.equal(colours[3], M) and type(colours[2])==type(G) and type(colours[3])==type(M)
    levels = [len(set(o[0,:,0,0].tolist())) for o in colours[2]]
    assert all(n>1 for n in levels) if per_frame else levels==[1]*len(levels)
    assert len({o[0,0,0,0].item() for o in colours[2]})==len(G), 'each clip has a draw of its own'
    flipped = change(v2.RandomHorizontalFlip(1.), X, k, G, M)
    assert torch.equal(flipped[2], G.flip(-1)) and torch.equal(flipped[3], M.flip(-1)) and torch.equal(flipped[0], X.flip(-1)) and torch.equal(flipped[1], k)
    still = change(v2.ColorJitter(brightness=(.2,.8)), x, k)[0]
    assert (still.std(2).max()>.01)==per_frame
    dls = call(PRPDataLoaders.from_folder, data, batch_tfms=AugVideo(v2.RandomHorizontalFlip(1.), per_frame=per_frame))
    for a,b in zip(plain.valid.one_batch(), dls.valid.one_batch()): assert torch.equal(a, b)
    learn = prp_learner(dls, width=.05)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    labelled = call(VideoDataLoaders.from_folder, data, batch_tfms=AugVideo(v2.Grayscale(3), per_frame=per_frame))
    x,y = labelled.one_batch()
    assert torch.allclose(x[:,0], x[:,2]) and x.max()<=1 and not torch.allclose(*labelled.valid.one_batch()[0][:,[0,2]].unbind(1))
    assert y.shape==(2,) and isinstance(x, TensorVideo)
