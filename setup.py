"""What pyproject.toml cannot say: a wheel carries `configs/` inside the package."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # a checkout has them beside the package
            self.copy_tree("configs", str(Path(self.build_lib) / "als" / "configs"))


setup(cmdclass={"build_py": WithConfigs})
