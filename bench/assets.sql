-- What a DBA would type for legacy.assets.
INSERT INTO models (id, artist_id, name, description, base_price, genre, categories, tags,
                    aabb, footprint, file_paths, print_recommendations, print_stats, status,
                    view_count, purchase_count, created_at, updated_at)
SELECT id, artist_id, name, description, base_price, genre, categories, tags,
       aabb, footprint, file_paths, print_recommendations, print_stats, status,
       view_count, purchase_count, created_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC'
  FROM legacy.assets;
