"ONNX and torch.export: the same numbers without prp_fastai"
import importlib.util,json,subprocess,sys
import pytest,torch
from prp_fastai.all import *
from prp_fastai import portable as module

needs_onnx = pytest.mark.skipif(not all(map(importlib.util.find_spec, ('onnx','onnxscript','onnxruntime'))),
                                reason='onnx, onnxscript and onnxruntime are not installed: pip install prp_fastai[onnx]')

def lively(model):
    "Weights and statistics that make the outputs differ from clip to clip"
    for m in model.modules():
        if isinstance(m, nn.BatchNorm3d):
            m.running_mean.normal_(0, .1)
            m.running_var.uniform_(.01, .1)
    return model

@pytest.fixture(scope='module')
def dls(video_folder):
    df = pd.DataFrame([(o, 'ab'[i%2]) for i,o in enumerate(sorted(get_video_files(video_folder)))], columns=['path','label'])
    return VideoDataLoaders.from_df(df, size=32, bs=4, num_workers=0)

def classifier(dls, arch='c3d', width=.05):
    learn = video_learner(dls, arch, width=width)
    lively(learn.model)
    return learn

def pretrained(video_folder, **kwargs):
    learn = prp_learner(PRPDataLoaders.from_folder(video_folder, size=32, bs=4, num_workers=0), width=.05, **kwargs)
    lively(learn.model)
    return learn

@torch.no_grad()
def outputs(learn, x): return [o.numpy() for o in tuplify(getattr(learn, 'model', learn).eval()(x))]

def off(a, b): return max(np.abs(x-y).max()/np.abs(x).max() for x,y in zip(a, b, strict=True))

@needs_onnx
@pytest.mark.parametrize('arch', ['c3d','r3d','r2plus1d','r3d_18'])
def test_onnx_agrees_for_any_number_of_clips(dls, tmp_path, arch):
    import onnxruntime
    learn = classifier(dls, arch, 1. if arch=='r3d_18' else .05)
    session = onnxruntime.InferenceSession(to_onnx(learn, tmp_path/'m.onnx'))
    for n in (1,2,7):
        x = torch.rand(n,3,16,32,32)
        want = outputs(learn, x)
        assert n==1 or want[0].std(0).max()>1e-3*np.abs(want[0]).max()
        assert off(want, session.run(None, dict(clips=x.numpy())))<1e-4
    assert json.loads(session.get_modelmeta().custom_metadata_map['prp_fastai'])['classes']==['a','b']
    assert [o.name for o in session.get_outputs()]==['logits'] and session.get_inputs()[0].shape==['batch',3,16,32,32]
    assert [o.name for o in tmp_path.iterdir()]==['m.onnx']

@needs_onnx
@pytest.mark.parametrize('heads,names', [(('rate','recon'),['rate_logits','reconstruction']), (('rate',),['rate_logits']), (('recon',),['reconstruction'])])
def test_both_heads_and_encoders_too(video_folder, tmp_path, heads, names):
    import onnxruntime
    learn,x = pretrained(video_folder, heads=heads),torch.rand(3,3,16,32,32)
    session = onnxruntime.InferenceSession(to_onnx(learn, tmp_path/'m.onnx'))
    assert [o.name for o in session.get_outputs()]==names and off(outputs(learn, x), session.run(None, dict(clips=x.numpy())))<1e-4
    encoder = load_model(learn.save_encoder(tmp_path/'e.safetensors'))
    session = onnxruntime.InferenceSession(to_onnx(encoder, tmp_path/'e.onnx'))
    assert [o.name for o in session.get_outputs()]==['features'] and off(outputs(encoder, x), session.run(None, dict(clips=x.numpy())))<1e-4

@needs_onnx
def test_a_video_gets_its_probabilities_without_torch(dls, tmp_path):
    "A program of numpy and onnxruntime alone, given a clip"
    learn,video = classifier(dls),dls.valid_ds.items[0]
    loaded = load_model(save_model(learn, tmp_path/'m.safetensors'))
    to_onnx(loaded, tmp_path/'m.onnx')
    x = loaded.dls.test_dl([video], num_workers=0).one_batch()[0].cpu().as_subclass(Tensor).numpy()
    np.save(tmp_path/'x.npy', x)
    said = subprocess.run([sys.executable, '-c', f"""
import sys,json,numpy as np,onnxruntime
s = onnxruntime.InferenceSession({str(tmp_path/'m.onnx')!r})
z, = s.run(None, dict(clips=np.load({str(tmp_path/'x.npy')!r})))
assert 'torch' not in sys.modules
classes = json.loads(s.get_modelmeta().custom_metadata_map['prp_fastai'])['classes']
print(json.dumps(dict(zip(classes, (np.exp(z[0])/np.exp(z[0]).sum()).tolist()))))"""], capture_output=True, text=True, check=True).stdout
    with learn.no_bar(): label,_,probs = learn.predict(video)
    said = json.loads(said)
    assert max(said, key=said.get)==label and np.abs(np.array(list(said.values()))-probs.numpy()).max()<1e-4

@needs_onnx
def test_a_graph_that_differs_is_not_kept(dls, tmp_path, monkeypatch):
    learn,export = classifier(dls),module.export_program
    to_onnx(learn, tmp_path/'m.onnx')
    before = (tmp_path/'m.onnx').read_bytes()
    def other(model):
        model = deepcopy(model)
        model.model.head[-1].bias.data += .01
        return export(model)
    monkeypatch.setattr(module, 'export_program', other)
    with pytest.raises(ValueError, match='of their range'): to_onnx(learn, tmp_path/'m.onnx')
    assert (tmp_path/'m.onnx').read_bytes()==before and len(list(tmp_path.iterdir()))==1

def test_torch_export_agrees_for_any_number_of_clips(dls, video_folder, tmp_path):
    for learn in (classifier(dls, 'r2plus1d'), pretrained(video_folder)):
        learn.model.train()
        torch.export.save(export_program(learn), tmp_path/'m.pt2')
        assert learn.model.training
        run = torch.export.load(tmp_path/'m.pt2').module()
        for n in (1,2,5):
            x = torch.rand(n,3,16,32,32)
            assert off(outputs(learn, x), [o.detach().numpy() for o in tuplify(run(x))])<1e-5

def test_what_is_missing_is_named(dls, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='which clips'): export_program(c3d(.05))
    monkeypatch.setitem(sys.modules, 'onnx', None)
    with pytest.raises(ImportError, match=r'onnx is missing: pip install prp_fastai\[onnx\]'): to_onnx(classifier(dls), tmp_path/'m.onnx')
    assert not list(tmp_path.iterdir())
