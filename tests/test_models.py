"Shapes, heads and encoders"
import pytest,torch
import torch.nn.functional as F
from torch import nn
from prp_fastai.models.encoders import *
from prp_fastai.models.prp import *

@pytest.mark.parametrize('arch', encoders)
def test_full_size(arch):
    frames = 16 if arch=='mc3_18' else 2
    with torch.no_grad(): assert create_encoder(arch).eval()(torch.rand(1,3,16,112,112)).shape==(1,512,frames,7,7)

@pytest.mark.parametrize('arch', ['c3d','r3d','r2plus1d'])
@pytest.mark.parametrize('size,l,r', [(112,16,2), (56,16,4), (60,8,1), (33,12,2)])
def test_output_has_the_size_of_the_target(arch, size, l, r):
    model = PRPModel(arch, n_rates=5, recon_rate=r, width=.05).eval()
    with torch.no_grad(): logits,recon = model(torch.rand(2,3,l,size,size+4))
    assert logits.shape==(2,5) and recon.shape==(2,3,r*l,size,size+4)

def test_torchvision_by_name():
    with torch.no_grad(): logits,recon = PRPModel('r3d_18').eval()(torch.rand(1,3,16,32,32))
    assert recon.shape==(1,3,32,32,32)
    with pytest.raises(ValueError, match='has one width'): create_encoder('r3d_18', width=.5)

def test_any_module_with_a_feature_map():
    own = nn.Sequential(nn.Conv3d(3, 8, 5, stride=4, padding=2), nn.ReLU())
    assert PRPModel(own)(torch.rand(2,3,16,40,40))[1].shape==(2,3,32,40,40)
    with pytest.raises(ValueError, match='5-D|feature map'): PRPModel(nn.Sequential(nn.Conv3d(3, 8, 1), nn.Flatten()))

def test_surplus_is_cut_and_shortage_scaled():
    "Encoders round up at sides that are no multiple of 16: what is too much lies right and below, so cutting keeps pixels in place"
    decoder = PRPModel('c3d', width=.05).eval().recon
    features = torch.rand(1,25,2,4,4)
    with torch.no_grad():
        whole = decoder.layers(features)
        assert torch.equal(decoder(features, torch.rand(1,3,16,56,60)), whole[...,:56,:60])
        torch.testing.assert_close(decoder(features, torch.rand(1,3,16,96,96)).mean(), whole.mean(), rtol=.05, atol=0)

@pytest.mark.parametrize('size,r', [(32,2), (36,1)])
def test_a_residual_reconstruction_is_added_to_the_clips_own_mean_colour(size, r):
    linear,residual = (PRPModel('c3d', recon_rate=r, width=.05, final=o).eval() for o in ('linear','residual'))
    residual.load_state_dict(linear.state_dict())
    x = torch.rand(2,3,16,size,size)*torch.tensor([.2,.9])[:,None,None,None,None]
    with torch.no_grad(): (rate,plain),(same_rate,added) = linear(x),residual(x)
    assert torch.equal(rate, same_rate)
    assert torch.allclose(added, plain+x.flatten(2).mean(2)[...,None,None,None], atol=1e-6)

@pytest.mark.parametrize('size,r', [(32,2), (36,1), (96,4)])
def test_a_skip_adds_a_convolution_of_the_features(size, r):
    linear,skip = (PRPModel('c3d', recon_rate=r, width=.05, final=o).eval() for o in ('linear','skip'))
    missing = skip.load_state_dict(linear.state_dict(), strict=False).missing_keys
    assert missing==['recon.skip.weight','recon.skip.bias']
    x = torch.rand(2,3,16,size,size)
    with torch.no_grad():
        features = linear.encoder(x)
        coarse = F.interpolate(skip.recon.skip(features), size=linear.recon.layers(features).shape[2:], mode='trilinear')
        plain,added = linear(x)[1],skip(x)[1]
    assert added.shape==(2,3,16*r,size,size)
    assert torch.allclose(added, plain+coarse[...,:size,:size], atol=1e-6)
