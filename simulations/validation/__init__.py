"""Every bound against the truth: how often is a bound below the true harm, and how often was it promised not to be?"""
