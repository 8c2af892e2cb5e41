"""Independent observations: from when on does the cautious bound hold for good?"""
