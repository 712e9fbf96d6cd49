"""Systems that SPA is compared with and whose training is more than another loss on its pairs: one file each."""
