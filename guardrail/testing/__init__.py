"""For third parties: slow, obvious references and suites with which an implementation proves itself."""
