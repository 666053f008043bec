"Shell commands"
import warnings

warnings.filterwarnings('ignore', '`torch.jit.script` is deprecated', FutureWarning) # of a dependency, at each start
