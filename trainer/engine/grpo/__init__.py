"""Group-relative policy optimisation on PPO's answers, rewards and reference, without a value function."""
