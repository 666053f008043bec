"The models in the wheel: small, trained on other videos, and better than knowing nothing"
import pytest
from fastcore.test import test_eq
from prp_fastai.all import *

def dataloaders(): return PRPDataLoaders.from_folder(sample_videos(), size=56, bs=10, num_workers=0)

@pytest.mark.parametrize('name,heads', [('sample',('rate',)), ('sample-recon',('rate','recon'))])
def test_packaged_models(name, heads):
    assert name in packaged_models and model_file(name).stat().st_size<2e6
    learn,card = load_model(name),read_card(name)
    test_eq(learn.model.heads, heads)
    test_eq([card[k] for k in ('arch','width','size','clip_len','rates')], ['c3d',.125,56,16,[1,2,4,8]])
    assert len(card['seen'])==960
    check_unseen(card, get_video_files(sample_videos()))
    assert {o.dtype for o in learn.model.parameters()}=={torch.float32}

def test_packaged_models_predict_rates():
    "Far above chance, and reconstructions better than the mean colour of each clip"
    dls = dataloaders()
    learn = load_model('sample')
    learn.dls = dls
    with learn.no_bar(): assert learn.validate()[1]>=.75
    learn = load_model('sample-recon')
    learn.dls = dls
    with learn.no_bar(): loss_g = learn.validate()[3]
    assert loss_g<recon_baselines(dls.valid)['mean colour of each clip']

def card_holder(name): return getattr(load_model(name), 'model', load_model(name)).encoder

def test_the_packaged_rate_model():
    "Most of the packaged videos, which it has not seen, play as they were filmed; half and double speed are told apart"
    model,files = load_model('sample-rate'),get_video_files(sample_videos())[::4]
    check_unseen(card_of(model), files)
    assert {o.dtype for o in model.parameters()}=={torch.float32} and not model.training
    table = rates_of(model, files)
    assert table.sure.all() and np.log2(table.rate).abs().median()<.4

def test_encoder_is_that_of_the_whole_model():
    for name in packaged_models:
        encoder,whole = load_encoder(name).state_dict(),card_holder(name).state_dict()
        assert encoder.keys()==whole.keys() and all(torch.equal(o, whole[k]) for k,o in encoder.items())
        assert get_encoder(name).card==load_encoder(name).card
        assert not {'kind','classes'} & set(load_encoder(name).card)

def test_a_file_of_that_name_is_not_taken_for_it(tmp_path, monkeypatch):
    "A packaged model is meant by its bare name only"
    monkeypatch.chdir(tmp_path)
    learn = prp_learner(dataloaders(), width=.02)
    learn.save_encoder('sample.safetensors')
    test_eq(load_encoder('sample.safetensors').card['width'], .02)
    test_eq(load_encoder('sample').card['width'], .125)
