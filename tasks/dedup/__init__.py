"""How stages that dedup find what is the same, choose what stays, and write shards anew."""
