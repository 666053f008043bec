"Every pretext: `from prp_fastai.pretexts.all import *` fills `pretexts` and `pretext_heads`"
from .speed import *
from .contrast import *
from .pace import *
from .relative import *
from .rank import *
from .order import *
from .warp import *
from .modern import *
