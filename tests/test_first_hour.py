"A user's first hour, call by call, in small"
import pytest
from fastcore.test import test_eq
from prp_fastai.all import *

@pytest.fixture(scope='module')
def pretrained(tmp_path_factory):
    path = sample_videos()
    dls = PRPDataLoaders.from_folder(path, rates=(1,2,4,8), recon_rate=2, bs=8, size=32, num_workers=0)
    dls.show_batch(unique=True)
    learn = prp_learner(dls, c3d, width=.05, path=tmp_path_factory.mktemp('run'))
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(1, 1e-2)
    return path,learn

def test_pretraining(pretrained):
    path,learn = pretrained
    test_eq(learn.recorder.metric_names, ['epoch','train_loss','valid_loss','rate_accuracy','loss_d','loss_g','time'])
    with learn.no_bar():
        learn.show_results()
        learn.plot_activations(get_video_files(path)[:2])
        learn.lr_find(num_it=3, show_plot=False)

def test_recognition_and_retrieval(pretrained):
    path,learn = pretrained
    dls = VideoDataLoaders.from_ucf101(path, split=1, size=32, num_workers=0)
    ft = video_learner(dls, c3d, encoder=learn)
    with ft.no_bar(), ft.no_logging(): ft.fine_tune(1)
    with ft.no_bar(): assert 0<=recognition_accuracy(ft, clips=10)<=1
    train = read_list(path/'split/trainlist01.txt')
    index = VideoIndex.from_learner(learn, train, num_workers=0)
    index.search(read_list(path/'split/testlist01.txt')[0]).show()
    with pytest.raises(ValueError, match='has learned from'): retrieval_table(learn, dls, num_workers=0)
    table,_ = retrieval_table(learn, dls, allow_seen=True, num_workers=0)
    test_eq(list(table.columns), ['top1','top5','top10','top20','top50'])

def test_other_sources_of_labels_are_there():
    for o in ('from_folder','from_csv','from_df','from_hmdb51','from_ucf101'): assert callable(getattr(VideoDataLoaders, o))
