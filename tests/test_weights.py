"Weights in and out, and what is refused"
import re
import pytest,torch
from safetensors.torch import save_file
from prp_fastai.all import *
from prp_fastai import weights as module

full = ['c3d','r3d','r2plus1d']

def vcop_keys(arch):
    "The tensors that VCOP's networks have, from its models' text: convolution and batch normalisation by name"
    conv,bn = ['weight','bias'],['weight','bias','running_mean','running_var','num_batches_tracked']
    def both(c, b, conv=conv): return [f'{c}.{o}' for o in conv]+[f'{b}.{o}' for o in bn]
    if arch=='c3d': return sorted(sum((both(f'conv{o}', f'bn{o}') for o in ('1','2','3a','3b','4a','4b','5a','5b')), []))
    def st(name): # a convolution without bias, whole or split in space, batch normalisation, time
        if arch=='r3d': return [f'{name}.temporal_spatial_conv.weight']
        return [f'{name}.spatial_conv.weight', *(f'{name}.bn.{o}' for o in bn), f'{name}.temporal_conv.weight']
    keys = st('conv1')+[f'bn1.{o}' for o in bn]
    for i in '2345':
        for j in '12': keys += st(f'conv{i}.block1.conv{j}')+[f'conv{i}.block1.bn{j}.{o}' for o in bn]
        if i!='2': keys += st(f'conv{i}.block1.downsampleconv')+[f'conv{i}.block1.downsamplebn.{o}' for o in bn]
    return sorted(keys)

def loaded_by_vcop(state):
    "What VCOP's loader keeps of a checkpoint: keys that hold `base_network`, from the first dot on"
    return {k[k.find('.')+1:]: v for k,v in state.items() if 'base_network' in k}

@pytest.mark.parametrize('arch', full)
def test_vcop_reads_ours_and_we_read_vcops(arch):
    encoder = create_encoder(arch)
    for p in encoder.parameters(): torch.nn.init.normal_(p)
    there = loaded_by_vcop(to_vcop(encoder))
    assert sorted(there)==vcop_keys(arch)
    if arch=='c3d':
        for k,m in {'conv2':encoder.conv2[0], 'bn3a':encoder.conv3[0][1], 'conv4b':encoder.conv4[1][0], 'conv5a':encoder.conv5[0][0], 'bn5b':encoder.conv5[1][1]}.items():
            assert torch.equal(there[f'{k}.weight'], m.weight), k
    for state in (to_vcop(encoder), {f'module.{k}':v for k,v in to_vcop(encoder).items()}, there, {**to_vcop(encoder), 'fc7.weight': torch.ones(2)}, {**there, 'linear.bias': torch.ones(101)}):
        back = from_vcop(state)
        assert encoder_arch(back)==arch
        for k,v in encoder.state_dict().items(): assert torch.equal(back.state_dict()[k], v), k

def test_the_authors_own_files_are_not_vcops():
    "Row 43: DataParallel's prefix stays, so their keys are not those VCOP's loader wants"
    theirs = to_authors(PRPModel('c3d'))
    assert not set(loaded_by_vcop(theirs)) & set(vcop_keys('c3d'))
    ours = to_vcop(from_authors(theirs).encoder)
    assert sorted(loaded_by_vcop(ours))==vcop_keys('c3d')

@pytest.mark.parametrize('arch', full)
def test_authors_round_trip_to_the_same_bytes(arch, tmp_path):
    model = PRPModel(arch)
    torch.save(to_authors(model), tmp_path/'a.pth.tar')
    back = from_authors(tmp_path/'a.pth.tar')
    torch.save(to_authors(back), tmp_path/'b.pth.tar')
    a,b = (torch.load(tmp_path/f'{o}.pth.tar', weights_only=True) for o in 'ab')
    assert list(a)==list(b) and all(v.numpy().tobytes()==b[k].numpy().tobytes() for k,v in a.items())
    encoder,card = encoder_and_card(tmp_path/'a.pth.tar')
    assert card['arch']==arch and (card['size'],card['clip_len'])==(112,16)
    assert all(torch.equal(v, encoder.state_dict()[k]) for k,v in model.encoder.state_dict().items())

def test_what_does_not_fit_is_refused(tmp_path):
    state = to_authors(PRPModel('c3d'))
    wrong = {**state, 'module.base_network.conv1.conv3d.0.weight': torch.ones(64,3,3,3,1)}
    with pytest.raises(ValueError, match='1 keys differ, the first is base_network.conv1.conv3d.0.weight'): from_authors(wrong)
    with pytest.raises(ValueError, match='no checkpoint of r3d by VCOP'): from_vcop(state)
    with pytest.raises(ValueError, match='the authors have no Sequential'): to_authors(PRPModel('r3d_18'))
    class Evil:
        def __reduce__(self): return (Path(tmp_path/'was_here').touch, ())
    torch.save({'a': Evil()}, tmp_path/'evil.pth')
    with pytest.raises(Exception, match='[Ww]eights.only'): from_authors(tmp_path/'evil.pth')
    assert not (tmp_path/'was_here').exists()

@pytest.fixture(scope='module')
def learn(video_folder): return prp_learner(PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0), 'c3d', width=.05)

@pytest.fixture(scope='module')
def fname(learn, tmp_path_factory): return learn.save_encoder(tmp_path_factory.mktemp('e')/'encoder.safetensors')

@pytest.mark.parametrize('given,says', [(dict(size=56), 'size 32, not 56'), (dict(clip_len=8), 'clip_len 16, not 8'), (dict(frame_size=(128,171)), r'frame_size \[37, 49\], not \(128, 171\)'),
                                        (dict(pixels='BGR'), 'pixels RGB in 0..1, not BGR')])
def test_other_clips_are_refused(fname, given, says):
    card = read_card(fname)
    check_card(card, {k:card[k] for k in given})
    with pytest.raises(ValueError, match=says): check_card(card, given)

def test_dataloaders_are_asked(learn, fname, video_folder):
    check_card(read_card(fname), learn.dls)
    with pytest.raises(ValueError, match='clip_len 16, not 8'): check_card(read_card(fname), PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0, clip_len=8))

def test_seen_videos_are_refused(learn, fname):
    card,train,valid = read_card(fname),learn.dls.train_ds.items,learn.dls.valid_ds.items
    check_unseen(card, valid)
    moved = [Path('/other')/o.parent.name/f'{o.stem}.avi' for o in train[:2]]
    with pytest.raises(ValueError, match=f'from 2 of the {2+len(valid)} videos .* the first is {moved[0].name}'): check_unseen(card, [*valid,*moved])
    with pytest.warns(UserWarning, match='has learned from 2'): check_unseen(card, moved, allow_seen=True)
    check_unseen({}, train)

def test_encoders_from_anywhere(learn, fname, tmp_path):
    x = torch.rand(1,3,16,32,32)
    want = learn.model.encoder.eval()(x)
    for source in (learn, learn.model, learn.model.encoder, fname, str(fname)):
        encoder,card = encoder_and_card(source)
        assert torch.equal(encoder(x), want) and card['size']==32 and card==encoder.card

@pytest.mark.parametrize('arch', full)
def test_encoders_can_be_exported(arch, tmp_path):
    encoder,x = create_encoder(arch, .05).eval(),torch.rand(2,3,16,48,48)
    torch.export.save(torch.export.export(encoder, (x,)), tmp_path/'e.pt2')
    torch.testing.assert_close(torch.export.load(tmp_path/'e.pt2').module()(x), encoder(x))

def test_an_encoder_whose_writing_breaks_off_is_still_the_one_before(learn, tmp_path, monkeypatch):
    before = learn.save_encoder(tmp_path/'encoder.safetensors').read_bytes()
    def broken(state, fname, metadata):
        Path(fname).write_bytes(b'half')
        raise OSError('no space left')
    monkeypatch.setattr(module, 'save_file', broken)
    with pytest.raises(OSError): learn.save_encoder(tmp_path/'encoder.safetensors')
    assert (tmp_path/'encoder.safetensors').read_bytes()==before
