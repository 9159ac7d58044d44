"""What results mean: metrics, statistics, leaderboards' boards, mistakes, doubtful labels, the study."""
