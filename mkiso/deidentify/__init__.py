"""De-identified copies of complete studies (PS3.15 Annex E): what may be copied, pseudonyms, cleaning, and the judge
who looks at what came of it by other means.
"""
