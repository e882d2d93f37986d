"""What one person, and all together, can ask of the app: bounds that are checked before anything is paid for."""

PHOTOS = 20  # of one session at once
PHOTO_BYTES = 20 << 20  # of one file
PIXELS = 24_000_000  # of one photo
SIDES = (32, 16_000)  # pixels of a photo's sides
FACES = 32  # chosen in one photo
QUEUED = 60  # photos that wait or are worked on, of all sessions
HELD_BYTES = 2 << 30  # photos in memory, before and after, of all sessions
KEPT_SECONDS = 900  # how long results outlive the last sign of life of their session
