"Retrieval, against a slow restatement of the protocol's text"
import json,numpy as np,pandas as pd,pytest,torch
from dataclasses import replace
from prp_fastai.all import *
from prp_fastai import retrieval
from conftest import pattern

@torch.no_grad()
def encoder(seed=0, width=.05):
    "A small C3D with random weights, whose normalisation has seen some input"
    torch.manual_seed(seed)
    m = create_encoder('c3d', width).train()
    for _ in range(30): m(torch.rand(4,3,16,1,1)*torch.rand(4,3,16,32,32))
    return m.eval()

size = 32
fast = dict(size=size, num_workers=0)

@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    "Four classes of five videos, of different lengths, one just a clip long"
    path,res = tmp_path_factory.mktemp('classes'),[]
    for c in 'ABCD':
        (path/c).mkdir()
        res += [write_video(path/c/f'v_{c}_g0{i}_c01 [{i}].mp4', pattern(16+11*i, 32, 44, seed=10*ord(c)+i), threads=1) for i in range(5)]
    return L(res)

def plain_vcop(model, train, test, ks):
    "Ten clips of 16 successive frames from `int(i-8)`, frames scaled and cropped in the middle, RGB/255; last map max-pooled (1,2,2), flattened; mean over clips; cosine; a hit if any of k is of the class"
    def feature(path):
        n,(H,W) = probe(path).n_frames,(round(size*128/112),round(size*171/112))
        feats = []
        for i in np.linspace(8, n-8, 10):
            frames = read_frames(path, range(int(i-8), int(i-8)+16), size=(H,W)).as_subclass(Tensor)
            top,left = round((H-size)/2),round((W-size)/2)
            clip = frames[:,:,top:top+size,left:left+size].float()/255
            with torch.no_grad(): m = model(clip[None])[0]
            c,t,h,w = m.shape
            feats.append([m[a,b,2*y:2*y+2,2*x:2*x+2].max().item() for a in range(c) for b in range(t) for y in range(h//2) for x in range(w//2)])
        return np.mean(feats, 0)
    X,Q = np.array([feature(o) for o in train]),np.array([feature(o) for o in test])
    distance = np.array([[1-(q@x)/(np.linalg.norm(q)*np.linalg.norm(x)) for x in X] for q in Q])
    order = np.argsort(distance, 1, kind='stable')
    right = {k: np.mean([any(Path(train[j]).parent.name==Path(o).parent.name for j in row[:k]) for o,row in zip(test, order)]) for k in ks}
    return X,Q,distance,order,right

def test_vcop_is_its_text(videos):
    train,test = videos[[i for i in range(20) if i%5]],videos[::5]
    model = encoder()
    X,Q,distance,order,right = plain_vcop(model, train, test, (1,5,10))
    index,queries = (VideoIndex.from_learner(model, o, **fast) for o in (train,test))
    np.testing.assert_allclose(index.features, X, rtol=1e-4, atol=1e-6)
    found = index.query(queries, 16)
    np.testing.assert_allclose(1-found.similarity, np.sort(distance, 1), atol=1e-5)
    np.testing.assert_array_equal(found.idxs[:,:5], order[:,:5])
    assert found.top_k((1,5,10))==pytest.approx(right)
    pairwise = pytest.importorskip('sklearn.metrics.pairwise')
    theirs = np.argsort(pairwise.cosine_distances(queries.features, index.features), 1)
    np.testing.assert_array_equal(found.idxs, theirs)

@pytest.mark.parametrize('name,n', [('vcop',9216), ('rspnet',512), ('tclr',2048)])
def test_feature_sizes_of_full_encoders(name, n):
    p = protocols[name]
    for arch in ('c3d','r3d'): assert clip_features(create_encoder(arch).eval(), torch.rand(1,3,16,112,112), p).shape==(1,n)

def test_a_feature_of_another_size_is_refused():
    with pytest.raises(ValueError, match='takes 9216 features of a clip, this encoder gives 73728'): clip_features(create_encoder('mc3_18').eval(), torch.rand(1,3,16,112,112), protocols['vcop'])

def test_protocols_by_name():
    p = protocols
    assert (p['vcop'].n_clips,p['vcop'].clip_len,p['vcop'].size,p['vcop'].s,p['vcop'].ks)==(10,16,112,1,(1,5,10,20,50))
    assert (p['coclr'].clip_len,p['coclr'].size,p['coclr'].center)==(32,128,True) and (p['tclr'].n_clips,p['tclr'].s,p['tclr'].zoom,p['tclr'].ks)==(9,2,.8,(1,5,10,20))
    with pytest.raises(ValueError, match='protocol must be one of vcop'): protocol_for('vcp')
    assert protocol_for('tclr', dict(pixels='RGB in 0..1', size=56, clip_len=8)).pixels=='RGB in 0..1'

def test_colours_of_protocols():
    seen = {}
    class Look(nn.Module):
        def forward(self, x): self.x = x; return x
    x,m = torch.rand(2,3,16,112,112),Look()
    clip_features(m, x, replace(protocols['rspnet'], size=1)); torch.testing.assert_close(m.x[:,1], (x[:,1]-.456)/.224)
    clip_features(m, x, replace(protocols['tclr'], zoom=0., size=1)); assert torch.equal(m.x[:,0], x[:,2])
    clip_features(m, x, replace(protocols['tclr'], size=1))
    spots = torch.zeros(1,3,16,112,112); spots[...,:5,:] = 1
    clip_features(m, spots, replace(protocols['tclr'], size=1)); assert m.x.max()==0, 'what lies outside the middle 0.8 of the height is cut away'

def test_windows_side_by_side_and_centring(videos):
    "CoCLR: the mean over whole windows; gallery and queries centred apart, then cosine"
    long,model = videos.filter(lambda o: probe(o).n_frames>=32),encoder()
    index = VideoIndex.from_learner(model, long, protocol='coclr', clip_len=16, size=size, num_workers=0)
    n = probe(long[-1]).n_frames
    frames = read_frames(long[-1], range(n), size=frame_size(size)).as_subclass(Tensor)
    clips = CropVideo(size)((frames,), split_idx=1)[0].float()/255
    with torch.no_grad(): want = torch.stack([model(clips[:,i:i+16][None]).mean((2,3,4))[0] for i in range(0, n-15, 16)]).mean(0)
    np.testing.assert_allclose(index.features[-1], want, rtol=1e-4)
    X,Q = np.random.RandomState(0).rand(9,5).astype('float32'),np.random.RandomState(1).rand(4,5).astype('float32')+3
    toy = VideoIndex(X, list('abcdefghi'), list('xyz'*3), 'coclr')
    a,b = X-X.mean(0),Q-Q.mean(0)
    want = (b/np.linalg.norm(b,axis=1,keepdims=True))@(a/np.linalg.norm(a,axis=1,keepdims=True)).T
    sims,idxs = toy.neighbours(Q, 9)
    np.testing.assert_allclose(sims, -np.sort(-want, 1), atol=1e-5)
    one = toy.neighbours(Q[:1], 1)[0]
    assert np.isfinite(one).all() and one[0,0]!=0
    with pytest.raises(VideoError, match='too few for a window of 32'): VideoIndex.from_learner(model, videos[:1], protocol='coclr', size=size, num_workers=0)

def toy(n=6, d=4, labels='aabbcc', seed=0): return VideoIndex(np.random.RandomState(seed).rand(n,d).astype('float32'), [f'{o}/{i}' for i,o in enumerate(labels)], list(labels))

def test_ties_come_in_the_order_of_the_gallery():
    x = np.eye(3, dtype='float32')[[0,1,0,2,0,1]]
    index = VideoIndex(x, list('abcdef'), list('uvuwuv'))
    for chunk in (1,2,4,100): assert index.neighbours(x[:1]*7, 6, chunk=chunk)[1].tolist()==[[0,2,4,1,3,5]]
    same = VideoIndex(np.ones((3000,2), 'float32'), list(map(str, range(3000))), ['u']*3000)
    assert same.neighbours(np.ones((1,2)), 3000, chunk=2000)[1].tolist()==[[*range(3000)]]
    assert index.neighbours(np.zeros((1,3)), 6)[1].tolist()==[[0,1,2,3,4,5]], 'nothing is nearer than another to a query of nothing'

@pytest.mark.parametrize('chunk', [1,3,4096])
def test_chunks_change_nothing(chunk):
    index,q = toy(50, 7, 'abcde'*10),np.random.RandomState(5).randn(8,7)
    sims,idxs = index.neighbours(q, 11, chunk=chunk)
    want = (q/np.linalg.norm(q,axis=1,keepdims=True))@(index.features/np.linalg.norm(index.features,axis=1,keepdims=True)).T
    np.testing.assert_array_equal(idxs, np.argsort(-want, 1)[:,:11])
    np.testing.assert_allclose(sims, np.take_along_axis(want, idxs, 1), atol=1e-5)

def test_more_neighbours_than_videos():
    index = toy()
    found = index.query(toy(2, 4, 'ab', 1), k=50)
    assert found.idxs.shape==(2,6)
    top = found.top_k((1,6,7,50))
    assert top[6]==1 and np.isnan([top[7],top[50]]).all()
    with pytest.raises(ValueError, match='k must be at least 1'): index.neighbours(index.features, 0)

def test_one_class_and_one_video():
    assert toy(4, 4, 'aaaa').query(toy(3, 4, 'aaa', 1)).top_k((1,4))=={1:1., 4:1.}
    assert toy(1, 4, 'a').query(toy(2, 4, 'ab', 1)).top_k((1,))=={1:.5}

def test_a_class_that_the_gallery_lacks_is_said(capsys):
    found = toy().query(toy(2, 4, 'az', 1), k=6)
    assert '1 of 2 queries are of classes that the gallery has not, and count as wrong: z' in capsys.readouterr().out
    assert found.top_k((6,))=={6:.5}

def test_recall_by_class():
    x = np.eye(3, dtype='float32')
    index = VideoIndex(x, list('pqr'), list('abc'))
    found = index.query(VideoIndex(x[[0,0,1,2]], list('stuv'), list('abbc')), k=2)
    df = found.recall(1)
    assert df.loc['b'].tolist()==[2,.5,'a'] and df.loc['a'].tolist()==[1,1.,''] and df.index[0]=='b'

def test_what_does_not_match_is_refused():
    index = toy()
    with pytest.raises(ValueError, match='4 features each, the queries are of shape'): index.neighbours(np.ones((2,5)))
    with pytest.raises(ValueError, match='6 videos, 5 features'): VideoIndex(np.ones((5,2)), list('abcdef'), list('abcdef'))
    with pytest.raises(ValueError, match='not made alike'): index.query(VideoIndex(index.features, index.files, index.labels, 'rspnet'))
    with pytest.raises(ValueError, match='no encoder'): index.search('a.mp4')
    with pytest.raises(ValueError, match='a query is a path, a clip'): index.search(torch.ones(2,2,2))
    with pytest.raises(ValueError, match='classes of the queries are not known'): index.search(index.features[0]).hits
    with pytest.raises(ValueError, match='6 videos have 5 labels'): retrieval._paths_and_labels(index.files, list('abcde'))

@pytest.mark.parametrize('workers', [0,2])
def test_bad_videos(videos, tmp_path, workers, capsys):
    (tmp_path/'A').mkdir()
    broken,short,gone = tmp_path/'A/broken.mp4',write_video(tmp_path/'A/short.mp4', pattern(15, 32, 44)),tmp_path/'A/gone.mp4'
    broken.write_bytes(b'no video')
    files = [videos[0],videos[1],broken,videos[2],short,gone,videos[3]]
    model,kw = encoder(),dict(size=size, bs=3, num_workers=workers)
    with pytest.raises(FileNotFoundError, match='gone.mp4'): VideoIndex.from_learner(model, files, **kw)
    with pytest.raises(VideoError, match='broken.mp4'): VideoIndex.from_learner(model, files[:4], **kw)
    capsys.readouterr()
    index = VideoIndex.from_learner(model, files, **kw, skip_bad=True, path=tmp_path/'index')
    said = capsys.readouterr().out
    assert '3 of 7 videos are left out' in said and all(o.name in said for o in (gone,broken,short))
    retrieval_table(model, files, videos[4:6], **kw, skip_bad=True)
    assert capsys.readouterr().out.count('3 of 7 videos are left out')==1 # Not again for random weights
    assert index.files==videos[:4] and [Path(o).name for o in index.bad]==['gone.mp4','broken.mp4','short.mp4']
    np.testing.assert_allclose(index.features, VideoIndex.from_learner(model, videos[:4], **fast).features, rtol=1e-5)
    again = VideoIndex.load(tmp_path/'index')
    assert again.bad==index.bad and np.array_equal(again.features, index.features)
    with pytest.raises(ValueError, match='none of 2 videos can be used'): VideoIndex.from_learner(model, [broken,short], **kw, skip_bad=True)

def test_on_disk_it_is_the_same_and_mapped(videos, tmp_path):
    model = encoder()
    index = VideoIndex.from_learner(model, videos[:6], **fast, path=tmp_path/'index')
    assert isinstance(index.features, np.memmap) and index.features.dtype==np.float32
    again = VideoIndex.load(tmp_path/'index', model)
    assert isinstance(again.features, np.memmap) and again.protocol==index.protocol and again.files==index.files and list(again.labels)==list(index.labels)
    a,b = (o.search(videos[7], k=3) for o in (index,again))
    assert np.array_equal(a.idxs, b.idxs)
    with pytest.raises(FileNotFoundError): VideoIndex.load(tmp_path)

def test_all_kinds_of_queries_agree(videos):
    model = encoder()
    index = VideoIndex.from_learner(model, videos, **fast)
    once = videos.filter(lambda o: probe(o).n_frames==16)[:2]
    clips = torch.stack([read_frames(o, range(16), size=frame_size(size)) for o in once])
    clips = CropVideo(size)((clips,), split_idx=1)[0].float()/255
    whole = [index.search(o, k=5) for o in (list(once), list(map(str, once)), clips, clip_features(model, clips.as_subclass(Tensor), index.protocol))]
    for o in whole: assert np.array_equal(o.idxs, whole[0].idxs)
    ones = [index.search(o, k=5) for o in (once[0], clips[0], index.features[videos.index(once[0])], tensor(index.features[videos.index(once[0])]))]
    for o in ones: assert o.idxs.tolist()==whole[0].idxs[:1].tolist() and o.files[0][0]==once[0]

def test_the_encoder_is_left_as_it_was(videos):
    model = encoder().train()
    before = {k:v.clone() for k,v in model.state_dict().items()}
    VideoIndex.from_learner(model, videos[:3], **fast)
    assert model.training and all(torch.equal(v, before[k]) for k,v in model.state_dict().items())

def test_table_of_a_learner_with_its_baseline(videos, tmp_path):
    train,test = videos[[i for i in range(20) if i%5>1]],videos[[i for i in range(20) if i%5<2]]
    learn = prp_learner(PRPDataLoaders.from_files(train, size=size, bs=2, num_workers=0), 'c3d', width=.05)
    table,found = retrieval_table(learn, train, test, num_workers=0)
    assert list(table.index)==['pretrained','random'] and list(table.columns)==['top1','top5','top10','top20','top50']
    assert table.loc['pretrained','top5']==100*found['pretrained'].top_k()[5] and np.isnan(table.loc['random','top20'])
    again,_ = retrieval_table(learn.save_encoder(tmp_path/'e.safetensors'), pd.DataFrame(dict(path=train.map(str), label=train.map(parent_label))), test, num_workers=0)
    pd.testing.assert_frame_equal(table, again)
    assert not torch.equal(first(reinitialized(learn.model.encoder).parameters()), first(learn.model.encoder.parameters()))
    seen = learn.dls.train_ds.items[:1]
    with pytest.raises(ValueError, match='has learned from 1 of the'): retrieval_table(learn, test, [*test,*seen], num_workers=0)
    with pytest.raises(ValueError, match='size 32, not 48'): retrieval_table(learn, train, test, size=48)

def test_random_weights():
    a,b,c = (reinitialized(encoder(), seed) for seed in (1,1,2))
    state = torch.get_rng_state()
    assert all(torch.equal(u, v) for u,v in zip(a.state_dict().values(), b.state_dict().values())) and not torch.equal(a.conv1[0].weight, c.conv1[0].weight)
    reinitialized(encoder()); assert a.conv1[1].running_mean.abs().sum()==0
    own = nn.Sequential(nn.Conv3d(3,4,1)); own.register_parameter('scale', nn.Parameter(torch.ones(1)))
    with pytest.raises(ValueError, match='Sequential has parameters'): reinitialized(own)

def test_from_one_dataset_to_another(videos, tmp_path):
    "Queries of another dataset, with names of classes of its own"
    other = [write_video(tmp_path/f'{i}.mp4', pattern(20, 36, 40, seed=i)) for i in range(3)]
    names = dict(zip(map(str, other), ['A','B','no such class']))
    model = encoder()
    index = VideoIndex.from_learner(model, videos, **fast)
    queries = VideoIndex.from_learner(model, other, labels=lambda o: names[str(o)], **fast)
    found = index.query(queries, 20)
    assert found.top_k((20,))[20]==pytest.approx(2/3)

def test_pictures(videos):
    index = VideoIndex.from_learner(encoder(), videos[:6], **fast)
    fig = index.search(list(videos[6:8]), labels=['B','B'], k=3).show(k=3)
    titles = [o.get_title() for o in fig.axes]
    assert len(fig.axes)==8 and titles[0]=='query: B' and all(o[0] in '✓✗' for o in titles[1:4]+titles[5:])
    for t,o in zip(titles[1:4], index.search(videos[6], k=3).idxs[0]): assert (t[0]=='✓')==(index.labels[o]=='B')
    index.search(torch.rand(3,16,size,size)).show(); index.search(index.features[0]).show(); plt.close('all')

def test_faiss_finds_the_same(monkeypatch):
    import sys
    index,q = toy(60, 8, 'abcdef'*10),np.random.RandomState(3).randn(5,8)
    monkeypatch.setitem(sys.modules, 'faiss', None)
    with pytest.raises(ImportError, match='pip install faiss-cpu'): index.neighbours(q, 4, faiss=True)
    monkeypatch.undo()
    pytest.importorskip('faiss')
    for a,b in zip(index.neighbours(q, 4), index.neighbours(q, 4, faiss=True)): np.testing.assert_allclose(a, b, atol=1e-5)

def test_the_command(videos, tmp_path, capsys):
    "Gallery and queries from a folder of classes; tables, figure, settings"
    learn = prp_learner(PRPDataLoaders.from_files(videos[[0,1,2,3,5,6]], size=size, bs=2, num_workers=0), 'c3d', width=.05)
    fname = learn.save_encoder(tmp_path/'e.safetensors')
    df = pd.DataFrame(dict(path=videos.map(str), label=videos.map(parent_label), is_test=[i%5==4 for i in range(20)]))
    df.to_csv(tmp_path/'videos.csv', index=False)
    table = prp_retrieve(str(tmp_path/'videos.csv'), str(fname), out=str(tmp_path/'out'), num_workers=0)
    assert 'top10' in capsys.readouterr().out
    out = tmp_path/'out'
    read = pd.read_csv(out/'retrieval.csv', index_col=0)
    np.testing.assert_allclose(read.values, table.values)
    assert list(read.index)==['pretrained','random'] and read.notna().sum().tolist()==[2,2,2,0,0]
    assert '|pretrained|' in (out/'retrieval.md').read_text() and '|–|' in (out/'retrieval.md').read_text()
    o = json.loads((out/'settings.json').read_text())['settings']
    assert (o['seed'],o['protocol'],o['size'],o['gallery_videos'],o['query_videos'],o['queries'])==(42,'vcop',size,16,4,None)
    assert (out/'figure7.png').stat().st_size>1000 and len(pd.read_csv(out/'recall-random.csv'))==4
    assert len(VideoIndex.load(out/'pretrained-gallery', fname))==16
    df['is_test'] = ~df.is_test; df.to_csv(tmp_path/'seen.csv', index=False)
    with pytest.raises(ValueError, match='allow_seen=True'): prp_retrieve(str(tmp_path/'seen.csv'), str(fname), out=str(tmp_path/'out2'), num_workers=0)

def test_moments_by_definition(videos):
    "Mean, variance and skewness over time and the clips of a video, of the map's mean over space"
    net = create_encoder('c3d', .05).eval()
    p = protocol_for('moments', clip_len=16, size=56)
    x,_ = video_features(net, videos[:2], p, num_workers=0)
    maps = torch.stack([o for _,o in each_video(net, videos[:2], replace(p, pool=lambda m: m.mean((3,4)).flatten(1)), average=False, num_workers=0)])
    v = maps.unflatten(-1, (num_features(net), -1)).double().transpose(1, 2).flatten(2)
    d = v-v.mean(2, keepdim=True)
    var = (d**2).mean(2)
    n = num_features(net)
    np.testing.assert_allclose(x[:,:n], v.mean(2), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(x[:,n:2*n], var.clamp(min=1e-8), rtol=1e-2, atol=1e-6)
    lively = var.numpy()>1e-4
    if lively.any(): np.testing.assert_allclose(x[:,2*n:][lively], ((d**3).mean(2)/var**1.5).numpy()[lively], rtol=2e-2, atol=2e-2)

def test_moments_know_skewness():
    x = torch.rand(1,3,50,1,1)**4
    p = protocols['moments']
    got = p.finish(p.pool(x))[0].numpy()
    from scipy.stats import skew
    np.testing.assert_allclose(got[6:], skew(x.flatten(2)[0], axis=1), rtol=1e-3)
    np.testing.assert_allclose(got[3:6], x.flatten(2)[0].var(1, correction=0), rtol=1e-3)

def test_moments_search_by_file_and_clip(videos):
    net = create_encoder('c3d', .05).eval()
    index = VideoIndex.from_learner(net, videos, protocol='moments', clip_len=16, size=56, num_workers=0)
    found = index.search(videos[0])
    assert found.files[0][0]==Path(videos[0]) and found.similarity[0,0]>.999
    assert index.search(torch.rand(3,16,56,56)).similarity.shape[1]==min(10, len(videos))
