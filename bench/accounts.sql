-- Not measured: the accounts that all the others refer to.
INSERT INTO users (id, email, password_hash, display_name, bio, profile_image_url,
                   banner_image_url, stripe_account_id, stripe_onboarding_complete,
                   invite_code, status, role, commission_rate, created_at, updated_at)
SELECT id, email, password_hash, name, bio, profile_image_url,
       banner_image_url, stripe_account_id, stripe_onboarding_complete,
       invite_code, status, role, commission_rate,
       created_at AT TIME ZONE 'UTC', updated_at AT TIME ZONE 'UTC'
  FROM legacy.artists;

INSERT INTO users (id, email, password_hash, role, status, display_name)
SELECT md5('customer:' || c.email)::uuid, c.email, '!', 'customer', 'active', ''
  FROM (SELECT lower(trim(user_email)) AS email FROM legacy.orders
        UNION
        SELECT lower(trim(user_email)) FROM legacy.user_tables WHERE user_email LIKE '%@%') c
 WHERE NOT EXISTS (SELECT FROM users u WHERE lower(u.email) = c.email);

ANALYZE users;
