"""What a loss is asked that has something of its own, which is stepped against S."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor

from idm_ray.condensation.objectives.loss import Loss


class Opposing(Loss):
    """A loss that S lowers and that its own part raises, an iteration after the other.

    All classes of S meet in that part, so S cannot be owned by several workers.
    """

    @abstractmethod
    def begin(self, size: int, like: Tensor) -> None:
        """Make the part, for features of so many numbers, of the type of `like` and where that is."""

    @abstractmethod
    def gather(self, features: Tensor, targets: Tensor, iteration: int) -> None:
        """Let it see some classes of an iteration, as they were before S stepped; see `distances`."""

    @abstractmethod
    def oppose(self, iteration: int) -> None:
        """Step it, along what was gathered of all classes."""

    @abstractmethod
    def state(self) -> dict[str, Tensor]:
        """What the next iteration depends on."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state that `state` gave."""

    @abstractmethod
    def opposing_flops(self, features: int) -> float:
        """Floating-point operations of an iteration beside those of its classes.

        Args:
            features: D.
        """

    @abstractmethod
    def opposing_numbers(self, features: int) -> int:
        """Numbers of the state.

        Args:
            features: D.
        """
