"""What real runtimes say of pulls that fail, a file per runtime and version, and how it is heard.

``python -m tests.agent.words.collect`` hears it again; ``tests/agent/test_words.py`` says what the
agent has to make of it.
"""
