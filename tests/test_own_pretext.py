"A pretext that the library does not know: one transform, one head, one loss, and nothing of the library changed"
from fastcore.test import test_eq
from prp_fastai.all import *

class Reversed(RandItem):
    "Clips (n,3,t,h,w) -> half of them played backwards, and which"
    split_idx,order = None,20
    def before_call(self, b, split_idx): self.do,self.valid = True,bool(split_idx)
    def encodes(self, o):
        x = o[0].as_subclass(Tensor)
        y = (torch.arange(len(x))%2 if self.valid else torch.randint(2, (len(x),))).to(x.device)
        return TensorImage(torch.where(y.view(-1,1,1,1,1)==1, x.flip(2), x)),TensorCategory(y)

class Direction(Module):
    def __init__(self, encoder): self.encoder,self.head = encoder,nn.Linear(num_features(encoder), 2)
    def forward(self, x): return self.head(self.encoder(x.as_subclass(Tensor)).mean((2,3,4)))

def test_a_new_pretext_trains_and_is_evaluated_as_ours(video_folder, tmp_path):
    files = get_video_files(video_folder)
    recipe = get_recipe(small, clip_len=16, size=24, rates=(1,))
    dls = DataBlock(VideoBlock(recipe), dl_type=VideoDL, splitter=IndexSplitter(range(8,12)), item_tfms=[RandomClip(16, frame_size(24)), CropVideo(24)],
                    batch_tfms=[IntToFloatTensor(), Reversed()]).dataloaders(files, bs=4, num_workers=0)
    learn = Learner(dls, Direction(c3d(.05)), CrossEntropyLossFlat(), metrics=accuracy, cbs=[StopAtNonFinite(), SkipUnread(), SaveBestEncoder(tmp_path/'best.safetensors')],
                    path=tmp_path)
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(2, 1e-2)
    test_eq(dls.valid.one_batch()[1].tolist(), [0,1,0,1])
    for o in (learn.save_encoder(tmp_path/'e.safetensors'), tmp_path/'best.safetensors'):
        card = read_card(o)
        test_eq([card[k] for k in ('clip_len','size')], [16,24])
        test_eq(card['seen'], sorted(video_ids(files[:8])))
    table,_ = retrieval_table(learn, files[:8], files[8:], ks=(1,), labels=lambda o: o.stem[-1], num_workers=0)
    test_eq(list(table.index), ['pretrained','random'])
    labelled = video_learner(VideoDataLoaders.from_df(pd.DataFrame(dict(path=files, label=['a','b']*6)), size=24, bs=4, num_workers=0), encoder=tmp_path/'e.safetensors')
    assert set(card['seen'])<=set(labelled.model.encoder.card['seen'])
