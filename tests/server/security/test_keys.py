import hmac

from guardrail.server.security import keys


def test_keys_are_long_random_and_recognisable():
    made = {keys.new_key() for _ in range(100)}
    assert len(made) == 100
    for key in made:
        assert key.startswith(keys.PREFIX)
        assert len(key) == len(keys.PREFIX) + 43  # 256 bits in base64
        assert keys.HASH.fullmatch(keys.hash_line(key))


def test_a_key_is_found_by_its_hash_alone():
    made = [keys.new_key() for _ in range(5)]
    hashes = [keys.hash_line(key) for key in made]
    assert [keys.find(key, hashes) for key in made] == list(range(5))
    assert keys.find(keys.new_key(), hashes) is None
    assert keys.find(made[0], []) is None
    assert keys.find(hashes[0], hashes) is None
    assert keys.find(made[0][:-1], hashes) is None


def test_every_entry_is_compared_in_constant_time(monkeypatch):
    compared = []
    real = hmac.compare_digest
    monkeypatch.setattr(keys.hmac, "compare_digest", lambda a, b: compared.append(b) or real(a, b))
    made = [keys.new_key() for _ in range(4)]
    hashes = [keys.hash_line(key) for key in made]
    for key in (made[0], made[3], keys.new_key()):
        compared.clear()
        keys.find(key, hashes)
        assert compared == hashes
