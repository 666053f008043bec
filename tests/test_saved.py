"Whole models in one file: what comes back predicts as what went in"
import json,shutil,subprocess,sys,types
import pytest,torch
from safetensors.torch import load_file,save_file
from torchvision.transforms import v2
from prp_fastai.all import *

@pytest.fixture(scope='module')
def table(video_folder): return pd.DataFrame([(o, 'ab'[i%2]) for i,o in enumerate(sorted(get_video_files(video_folder)))], columns=['path','label'])

def classifier(table, arch='c3d', multi=False, **kwargs):
    df = table.assign(label=['a','a,b','b']*4) if multi else table
    dls = VideoDataLoaders.from_df(df, size=32, bs=4, num_workers=0, label_delim=',' if multi else None, **kwargs)
    learn = video_learner(dls, arch, width=.05)
    for m in learn.model.modules():
        if isinstance(m, nn.BatchNorm3d): m.running_mean.normal_(0, .1)
    return learn

def predicted(learn, path):
    with learn.no_bar(): return learn.predict(path)

def same(a, b):
    assert str(a[0])==str(b[0]) and torch.equal(a[1], b[1]) and torch.equal(a[2], b[2])

@pytest.mark.parametrize('arch', ['c3d','r3d','r2plus1d'])
def test_a_classifier_predicts_as_it_did(table, tmp_path, arch):
    learn = classifier(table, arch)
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    for o in table.path[:3]: same(predicted(loaded, o), predicted(learn, o))
    same(predicted(loaded, str(table.path[0])), predicted(learn, table.path[0]))
    assert torch.equal(clip_logits(loaded, table.path[:2].tolist(), 3), clip_logits(learn, table.path[:2].tolist(), 3))
    assert not loaded.model.training and not len(loaded.dls.train_ds)
    for dl in loaded.dls.loaders: assert 'Blank' not in str(dl.after_item.fs[0].reader)

def test_a_fine_tuned_one_too(table, tmp_path):
    learn = classifier(table)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1)
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    same(predicted(loaded, table.path[0]), predicted(learn, table.path[0]))

def test_several_labels_keep_their_threshold(table, tmp_path):
    learn = classifier(table, multi=True)
    for thresh in (.5,.01,.99):
        learn.loss_func = BCEWithLogitsLossFlat(thresh=thresh)
        loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
        same(predicted(loaded, table.path[0]), predicted(learn, table.path[0]))
    assert isinstance(loaded.dls.vocab, (L,CategoryMap)) and list(loaded.dls.vocab)==['a','b']

def test_classes_may_be_numbers(table, tmp_path):
    df = table.assign(label=[10,9]*6)
    learn = video_learner(VideoDataLoaders.from_df(df, size=32, bs=4, num_workers=0), 'c3d', width=.05)
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    assert list(loaded.dls.vocab)==[9,10]
    same(predicted(loaded, table.path[0]), predicted(learn, table.path[0]))

def test_frames_per_second_travel(table, tmp_path):
    learn = classifier(table, fps=12.)
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    same(predicted(loaded, table.path[0]), predicted(learn, table.path[0]))
    plain = classifier(table)
    plain.model.load_state_dict(learn.model.state_dict())
    assert not torch.equal(predicted(plain, table.path[0])[2], predicted(learn, table.path[0])[2])

@pytest.mark.parametrize('heads', [('rate','recon'), ('rate',), ('recon',)])
@pytest.mark.parametrize('changed', [{}, dict(rates=(1,2), recon_rate=4, head_convs=False, final='linear', mean_colour=True), dict(final='residual')])
def test_heads_come_back(video_folder, tmp_path, heads, changed):
    clips = {k:v for k,v in changed.items() if k in field_names(Sampling)}
    dls = PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0, **clips)
    learn = prp_learner(dls, 'r3d', width=.05, heads=heads, **{k:v for k,v in changed.items() if k not in clips})
    loaded,x = load_model(save_model(learn, tmp_path/'m.safetensors')),torch.rand(2,3,16,32,32)
    for a,b in zip(loaded.model(x), learn.model.eval()(x), strict=True): assert torch.equal(a, b)
    assert loaded.recipe==learn.recipe and loaded.dls.vocab==learn.dls.vocab
    for k in field_names(Sampling, Crop, Attention): assert getattr(loaded.dls.recipe, k)==getattr(learn.dls.recipe, k), k
    video = get_video_files(video_folder)[0]
    for a,b in zip(predicted(loaded, video)[2], predicted(learn, video)[2]): assert torch.equal(a, b)

def test_in_another_process(table, tmp_path):
    learn = classifier(table)
    save_model(learn, tmp_path/'m.safetensors')
    said = subprocess.run([sys.executable, '-c', f'''
from prp_fastai.all import *
learn = load_model({str(tmp_path/'m.safetensors')!r})
with learn.no_bar(): label,_,probs = learn.predict({str(table.path[0])!r})
print(label, probs.numpy().tobytes().hex())'''], capture_output=True, text=True, check=True).stdout.split()
    label,_,probs = predicted(learn, table.path[0])
    assert said[-2:]==[label, probs.numpy().tobytes().hex()]

def test_encoders(video_folder, tmp_path):
    x,encoder = torch.rand(1,3,16,32,32),create_encoder('r2plus1d', .05).eval()
    clips = dict(clip_len=16, frame_size=(37,49), size=32, pixels='RGB in 0..1')
    fname = save_model(encoder, tmp_path/'e.safetensors', clips)
    for back in (load_model(fname), load_encoder(fname)): assert torch.equal(back(x), encoder(x))
    card = load_model(fname).card
    assert read_card(fname)['kind']=='encoder' and arch_of(encoder)==dict(arch='r2plus1d', width=card['width'])
    again = save_model(load_model(fname), tmp_path/'f.safetensors')
    assert read_card(again)==read_card(fname)
    learn = prp_learner(PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0), 'c3d', width=.05)
    old = load_model(learn.save_encoder(tmp_path/'old.safetensors'))
    assert torch.equal(old(x), learn.model.encoder.eval()(x)) and old.card['size']==32

@pytest.mark.parametrize('width', [.01,.05,.13,1/3,.5,1.])
def test_widths_are_found_by_layers(width):
    for arch in ('c3d','r3d','r2plus1d'):
        with torch.device('meta'): net = create_encoder(arch, width)
        found = arch_of(net)
        with torch.device('meta'): back = create_encoder(**found)
        assert found['arch']==arch and str(back)==str(net)

def test_a_network_of_ones_own(table, tmp_path):
    def net(width=1.): return nn.Sequential(nn.Conv3d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv3d(8, 8, 3, 2, 1))
    learn = video_learner(VideoDataLoaders.from_df(table, size=32, bs=4, num_workers=0), net)
    fname = save_model(learn, tmp_path/'m.safetensors')
    with pytest.raises(ValueError, match="no encoder 'net'"): load_model(fname)
    for arch in (net, net()): same(predicted(load_model(fname, arch), table.path[0]), predicted(learn, table.path[0]))
    with pytest.raises(ValueError, match='differs in'): load_model(fname, create_encoder('c3d', .05))

def test_what_a_card_cannot_hold_is_refused(table, tmp_path):
    def darker(o:TensorVideo): return o//2
    for k in ('item_tfms','batch_tfms'):
        with pytest.raises(ValueError, match='pass through .*darker'): save_model(classifier(table, **{k:darker}), tmp_path/'m.safetensors')
    training_only = classifier(table, flip=.5, batch_tfms=AugVideo(v2.ColorJitter(.5)))
    save_model(training_only, tmp_path/'ok.safetensors')
    learn = classifier(table)
    learn.loss_func = nn.CrossEntropyLoss()
    with pytest.raises(ValueError, match='CrossEntropyLoss gives no probabilities'): save_model(learn, tmp_path/'m.safetensors')
    learn.loss_func = LabelSmoothingCrossEntropyFlat()
    save_model(learn, tmp_path/'ok.safetensors')
    with pytest.raises(ValueError, match='give the learner'): save_model(learn.model, tmp_path/'m.safetensors')
    with pytest.raises(ValueError, match='not one of Linear'): save_model(Learner(learn.dls, nn.Linear(1,1), loss_func=noop), tmp_path/'m.safetensors')
    assert not (tmp_path/'m.safetensors').exists()

def edited(fname, to, **changed):
    save_file(load_file(fname), to, metadata=dict(prp_fastai=json.dumps({**read_card(fname), **changed})))
    return to

def test_cards_that_do_not_fit_are_refused(table, tmp_path):
    fname,to = save_model(classifier(table), tmp_path/'m.safetensors'),tmp_path/'edited.safetensors'
    with pytest.raises(ValueError, match="kind 'gan'"): load_model(edited(fname, to, kind='gan'))
    with pytest.raises(ValueError, match='frame_size'): load_model(edited(fname, to, frame_size=[40,40]))
    with pytest.raises(ValueError, match='classes come in the order'): load_model(edited(fname, to, classes=['b','a']))
    with pytest.raises(ValueError, match='differs in 2 tensors, the first is head.2.bias'): load_model(edited(fname, to, classes=['a','b','c']))
    save_file(load_file(fname), to)
    with pytest.raises(ValueError, match='does not say'): load_model(to)

def test_seen_videos_stay_on_the_card(table, tmp_path):
    learn = classifier(table)
    seen = set(video_ids(learn.dls.train_ds.items))
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    assert set(model_card(loaded)['seen'])==seen
    loaded.dls = learn.dls.new_empty()
    loaded.dls.loaders = learn.dls.loaders[::-1]
    assert set(model_card(loaded)['seen'])==seen|set(video_ids(learn.dls.valid_ds.items))

def test_the_encoder_of_a_classifier_can_be_saved(table, tmp_path):
    learn,x = classifier(table),torch.rand(1,3,16,32,32)
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    for i,source in enumerate((learn, loaded)):
        encoder = load_model(source.save_encoder(tmp_path/f'{i}.safetensors'))
        assert torch.equal(encoder(x), learn.model.encoder.eval()(x)) and encoder.card['seen']==sorted(video_ids(learn.dls.train_ds.items))
        again = video_learner(learn.dls, encoder=tmp_path/f'{i}.safetensors')
        assert torch.equal(again.model.encoder.eval()(x), encoder(x)) and model_card(again)['kind']=='classifier'

def test_a_write_that_breaks_off_leaves_the_file_before(table, tmp_path, monkeypatch):
    learn = classifier(table)
    before = save_model(learn, tmp_path/'m.safetensors').read_bytes()
    def broken(state, fname, metadata):
        Path(fname).write_bytes(b'half')
        raise OSError('no space left')
    monkeypatch.setattr('prp_fastai.weights.save_file', broken)
    with pytest.raises(OSError): save_model(learn, tmp_path/'m.safetensors')
    assert (tmp_path/'m.safetensors').read_bytes()==before

def test_nothing_is_unpickled(table, tmp_path):
    class Evil:
        def __reduce__(self): return (Path(tmp_path/'was_here').touch, ())
    torch.save({'a': Evil()}, tmp_path/'evil.safetensors')
    with pytest.raises(Exception, match='(?i)header'): load_model(tmp_path/'evil.safetensors')
    assert not (tmp_path/'was_here').exists()

@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A folder that stands in for the hub; `calls` says what was asked of it"
    huggingface_hub,root,calls = pytest.importorskip('huggingface_hub'),tmp_path/'hub',[]
    class HfApi:
        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private, exist_ok))
            (root/repo_id).mkdir(parents=True, exist_ok=True)
        def upload_folder(self, repo_id, folder_path):
            shutil.copytree(folder_path, root/repo_id, dirs_exist_ok=True)
            return f'https://hub/{repo_id}/commit/1'
    monkeypatch.setattr(huggingface_hub, 'HfApi', HfApi)
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', lambda repo_id, filename, revision=None: str(root/repo_id/filename))
    return types.SimpleNamespace(root=root, calls=calls)

def test_a_classifier_travels_by_the_hub(table, hub):
    learn = classifier(table)
    assert to_hub(learn, 'me/ab', private=True, license='mit')=='https://hub/me/ab/commit/1' and hub.calls==[('me/ab',True,True)]
    assert sorted(o.name for o in (hub.root/'me/ab').iterdir())==['README.md','model.safetensors']
    said = subprocess.run([sys.executable, '-c', f"""
import huggingface_hub
huggingface_hub.hf_hub_download = lambda repo_id, filename, revision=None: {str(hub.root)!r}+f'/{{repo_id}}/{{filename}}'
from prp_fastai.all import *
learn = from_hub('me/ab')
with learn.no_bar(): label,_,probs = learn.predict({str(table.path[0])!r})
print(label, probs.numpy().tobytes().hex())"""], capture_output=True, text=True, check=True).stdout.split()
    label,_,probs = predicted(learn, table.path[0])
    assert said[-2:]==[label, probs.numpy().tobytes().hex()]

def test_rate_models_and_encoders_travel_by_the_hub(video_folder, hub, tmp_path):
    learn = prp_learner(PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0), 'c3d', width=.05)
    x = torch.rand(1,3,16,32,32)
    to_hub(learn, 'me/prp')
    for a,b in zip(from_hub('me/prp').model(x), learn.model.eval()(x), strict=True): assert torch.equal(a, b)
    for source in (from_hub('me/prp').model.encoder, learn.save_encoder(tmp_path/'e.safetensors')):
        to_hub(source, 'me/encoder')
        assert torch.equal(from_hub('me/encoder')(x), learn.model.encoder(x))
    save_file({'a': torch.ones(1)}, hub.root/'me/prp/other.safetensors')
    with pytest.raises(ValueError, match='does not say'): from_hub('me/prp', 'other.safetensors')
    with pytest.raises(ValueError, match='does not say'): to_hub(hub.root/'me/prp/other.safetensors', 'me/other')
    assert not (hub.root/'me/other').exists()

def test_a_page_says_what_the_card_says(table, video_folder, hub, tmp_path):
    from huggingface_hub import ModelCard
    markdown = pytest.importorskip('markdown_it').MarkdownIt().enable('table')
    to_hub(classifier(table, 'r3d', fps=12.), 'me/ab', license='mit')
    page = ModelCard.load(hub.root/'me/ab/README.md')
    assert page.data.license=='mit' and page.data.pipeline_tag=='video-classification' and {'video','r3d'}<=set(page.data.tags)
    html = markdown.render(page.text)
    for o in ('<h1>ab</h1>','<h2>2 classes</h2>','<li>a</li>',"from_hub('me/ab')",'<td>12.0</td>','<td>32×32, in the middle</td>','learned from 10 videos'):
        assert o in html, o
    learn = prp_learner(PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0), 'c3d', width=.05)
    to_hub(learn, 'me/prp')
    page = ModelCard.load(hub.root/'me/prp/README.md')
    html = markdown.render(page.text)
    assert page.data.license is None and page.data.pipeline_tag=='feature-extraction' and '<td>dpau</td>' in html and '<td>1, 2, 4, 8</td>' in html
    own = save_model(nn.Conv3d(3,8,3), tmp_path/'own.safetensors', dict(clip_len=16, frame_size=(37,49), size=32, pixels='RGB in 0..1'))
    assert "from_hub('me/own', arch=Conv3d)" in str(hub_card(own, 'me/own'))

def test_the_hub_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    with pytest.raises(ImportError, match='pip install huggingface_hub'): from_hub('me/prp')
