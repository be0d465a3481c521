"""The one exception for input that the user can mend."""


class InputError(Exception):
    """Bad input, said in one clear sentence: which file, what is wrong, what to do.

    The command line prints the sentence and exits with status 2; the app shows it on the page.
    """

    def __init__(self, sentence: str):
        # A DataLoader's worker hands an exception over as one string, traceback and all.
        _, _, sentence = sentence.rpartition("als.errors.InputError: ")
        super().__init__(sentence.strip())
