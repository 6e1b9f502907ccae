"""Cut recordings into inputs longer than 10 s: create_tfrecords.py with 20 s by default, any length
with --seconds.

    python create_tfrecords_over_10s.py --data_path RAW --des_path OUT
Reads and writes what create_tfrecords.py does.
"""

from create_tfrecords import main

SECONDS = 20  # 84 frames of each neighbouring epoch

if __name__ == "__main__":
    main(seconds=SECONDS)
