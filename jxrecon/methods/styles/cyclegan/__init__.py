"""CycleGAN (Zhu et al., ICCV 2017): real X-rays in the style of synthetic ones, learnt without pairs."""
